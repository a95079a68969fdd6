"""Are values refused that contradict each other, or that lack what is needed, with a message that names them?"""

import pytest

from conftest import VALUES, merged, render

# A set, what is changed in it, and what the message has to hold.
CASES = {
    "no image": ("minimal", {"image": {"repository": ""}}, "image.repository is not set"),
    "no database": ("minimal", {"database": {"postgres": {"existingSecret": ""}}}, "database.postgres.existingSecret is not set"),
    "no place for uploads": ("minimal", {"uploads": ""}, "uploads is not set"),
    "no place for videos": ("minimal", {"media": ""}, "media is not set"),
    "uploads on a pod's disk": ("minimal", {"uploads": "/uploads"}, "/uploads"),
    "videos on a pod's disk": ("ha", {"media": "/media"}, "/media"),
    "SQLite and several servers": ("sqlite", {"api": {"replicas": 2}}, "/api/replicas"),
    "SQLite and servers that scale": ("sqlite", {"api": {"hpa": {"enabled": True}}}, "/api/hpa/enabled"),
    "SQLite without a server": ("sqlite", {"api": {"enabled": False}}, "/api/enabled"),
    "SQLite and several executors": ("sqlite", {"executors": {"replicas": 3}}, "/executors/replicas"),
    "SQLite and executors by KEDA": ("sqlite", {"executors": {"keda": {"enabled": True}}}, "/executors/keda/enabled"),
    "SQLite and executors by CPU": ("sqlite", {"executors": {"hpa": {"enabled": True}}}, "/executors/hpa/enabled"),
    "SQLite on a volume of many": ("sqlite", {"database": {"sqlite": {"accessMode": "ReadWriteMany"}}}, "/database/sqlite/accessMode"),
    "SQLite and PostgreSQL": ("sqlite", {"database": {"postgres": {"url": "postgres://db/spool"}}}, "/database/postgres/url"),
    "SQLite and alerts on a scheduler": (
        "sqlite",
        {"monitoring": {"enabled": True, "rules": {"enabled": True}}},
        "/monitoring/rules/enabled",
    ),
    "another store": ("minimal", {"database": {"kind": "mysql"}}, "/database/kind"),
    "KEDA and HPA": ("keda", {"executors": {"hpa": {"enabled": True}}}, "/executors/hpa/enabled"),
    "KEDA, more at least than at most": (
        "keda",
        {"executors": {"keda": {"minReplicas": 41}}},
        "executors.keda.minReplicas is 41, more than maxReplicas (40)",
    ),
    "HPA, more at least than at most": ("hpa", {"executors": {"hpa": {"maxReplicas": 1}}}, "executors.hpa.minReplicas is 2"),
    "servers, more at least than at most": ("keda", {"api": {"hpa": {"maxReplicas": 1}}}, "api.hpa.minReplicas is 2"),
    "HPA down to none": ("hpa", {"executors": {"hpa": {"minReplicas": 0}}}, "/executors/hpa/minReplicas"),
    "HPA by a share of nothing": (
        "hpa",
        {"executors": {"resources": {"requests": {"cpu": None}}}},
        "set executors.resources.requests.cpu",
    ),
    "a grace shorter than a row": (
        "minimal",
        {"executors": {"drainTimeoutSeconds": 300}},
        "executors.drainTimeoutSeconds is 300, less than rows.limitSeconds (900)",
    ),
    "killed before the grace is over": (
        "minimal",
        {"executors": {"terminationGracePeriodSeconds": 900}},
        "executors.terminationGracePeriodSeconds is 900, less than the grace and rows.marginSeconds (900 + 30)",
    ),
    "a longer row and the grace of before": ("hpa", {"rows": {"limitSeconds": 7200}}, "less than rows.limitSeconds (7200)"),
    "no time to end": ("minimal", {"rows": {"marginSeconds": 5}}, "/rows/marginSeconds"),
    "two secrets for the store": ("minimal", {"database": {"postgres": {"url": "postgres://db/spool"}}}, "/database/postgres/url"),
    "two tokens": ("second-scheduler", {"token": {"value": "a-token-of-sixteen-characters"}}, "/token/value"),
    "a token that can be guessed": ("minimal", {"token": {"value": "secret"}}, "/token/value"),
    "two pairs of keys": ("ha", {"s3": {"accessKeyId": "a", "secretAccessKey": "b"}}, "/s3/accessKeyId"),
    "half a pair of keys": ("minimal", {"s3": {"accessKeyId": "a"}}, "s3.accessKeyId and s3.secretAccessKey go together"),
    "a role and keys": ("aws-role", {"s3": {"existingSecret": "keys"}}, "leave one of them out"),
    "a role for an account that is not ours": ("aws-role", {"serviceAccount": {"create": False}}, "serviceAccount.create"),
    "an endpoint that is none": ("minimal", {"s3": {"endpoint": "minio:9000"}}, "/s3/endpoint"),
    "an ingress without a host": ("ingress", {"ingress": {"host": ""}}, "ingress.host is not set"),
    "an ingress without a server": ("ingress", {"api": {"enabled": False}}, "/api/enabled"),
    "alerts on what nobody scrapes": ("monitoring", {"monitoring": {"enabled": False}}, "/monitoring/enabled"),
    "a secret among arguments": ("minimal", {"executors": {"extraArgs": ["--token=abc"]}}, "/executors/extraArgs/0"),
    "a password among arguments": ("minimal", {"api": {"extraArgs": ["--database=postgres://u:p@db/s"]}}, "/api/extraArgs/0"),
    "pods that run as root": ("minimal", {"podSecurity": {"runAsUser": 0}}, "/podSecurity/runAsUser"),
    "sources of nowhere": ("minimal", {"httpSources": "private"}, "/httpSources"),
    "a limit that is none": ("minimal", {"limits": {"max-frames": 1}}, "max-frames"),
    "a misspelt value": ("minimal", {"executor": {"replicas": 2}}, "'executor'"),
    "a misspelt value further in": ("minimal", {"executors": {"replica": 2}}, "'replica'"),
    "a number as text": ("minimal", {"executors": {"replicas": "2"}}, "/executors/replicas"),
    "a digest that is none": ("minimal", {"image": {"digest": "latest"}}, "/image/digest"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    base, changes, message = CASES[name]
    with pytest.raises(Exception) as refused:
        render(merged(VALUES[base], changes))
    assert message in str(refused.value)


def test_values_at_the_edge_are_taken():
    edge = {"rows": {"limitSeconds": 900}, "executors": {"drainTimeoutSeconds": 900, "terminationGracePeriodSeconds": 930}}
    assert render(merged(VALUES["minimal"], edge))
    assert render(merged(VALUES["keda"], {"executors": {"keda": {"minReplicas": 40}}}))
    assert render({**VALUES["minimal"], "global": {"anything": True}})
