"""Amazon S3 and SQS by moto: a bucket that notifies a queue. Runs one command per line of stdin.

"put KEY FILE" puts an object, and "send TEXT" sends a message. The answer to each line, also to an empty one, is JSON with
the numbers of messages that are visible, in flight, and in the dead-letter queue. The first line of stdout holds the
endpoint and the queues.
"""

import json
import logging
import sys

import boto3
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = "http://%s:%d" % server.get_host_and_port()
session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
s3 = session.client("s3", endpoint_url=endpoint)
sqs = session.client("sqs", endpoint_url=endpoint)


def arn(url):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def counts(url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return [int(found[name]) for name in names]


dead_letters = sqs.create_queue(QueueName="dead")["QueueUrl"]
redrive = json.dumps({"deadLetterTargetArn": arn(dead_letters), "maxReceiveCount": "2"})
queue = sqs.create_queue(QueueName="arrivals", Attributes={"RedrivePolicy": redrive})["QueueUrl"]
s3.create_bucket(Bucket="inbox")
configuration = {"QueueConfigurations": [{"QueueArn": arn(queue), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]}
s3.put_bucket_notification_configuration(Bucket="inbox", NotificationConfiguration=configuration)
print(json.dumps({"endpoint": endpoint, "queue": queue, "dead_letters": dead_letters}), flush=True)

for line in sys.stdin:
    words = line.split(maxsplit=1) or [""]
    if words[0] == "put":
        key, file = words[1].rsplit(maxsplit=1)
        s3.upload_file(file, "inbox", key)
    elif words[0] == "send":
        sqs.send_message(QueueUrl=queue, MessageBody=words[1].strip())
    (visible, in_flight), letters = counts(queue), counts(dead_letters)
    print(json.dumps({"visible": visible, "in_flight": in_flight, "dead_letters": sum(letters)}), flush=True)
