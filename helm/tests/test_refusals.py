"""Contradictory and incomplete values are refused, with a message that names the value."""

import pytest

from conftest import VALUES, merged, render

# By description: a value set, the changes to it, and a part of the expected message.
CASES = {
    "no image": ("minimal", {"image": {"repository": ""}}, "image.repository is not set"),
    "no database": (
        "minimal",
        {"database": {"postgres": {"existingSecret": ""}}},
        "database.postgres.existingSecret is not set",
    ),
    "no uploads prefix": ("minimal", {"uploads": ""}, "uploads is not set"),
    "no media prefix": ("minimal", {"media": ""}, "media is not set"),
    "uploads in a folder with PostgreSQL": ("minimal", {"uploads": "/uploads"}, "/uploads"),
    "videos in a folder with PostgreSQL": ("ha", {"media": "/media"}, "/media"),
    "SQLite and several API pods": ("sqlite", {"api": {"replicas": 2}}, "/api/replicas"),
    "SQLite and an API that scales": ("sqlite", {"api": {"hpa": {"enabled": True}}}, "/api/hpa/enabled"),
    "SQLite without the API": ("sqlite", {"api": {"enabled": False}}, "/api/enabled"),
    "SQLite and several executors": ("sqlite", {"executors": {"replicas": 3}}, "/executors/replicas"),
    "SQLite and executors by KEDA": (
        "sqlite",
        {"executors": {"keda": {"enabled": True}}},
        "/executors/keda/enabled",
    ),
    "SQLite and executors by CPU": (
        "sqlite",
        {"executors": {"hpa": {"enabled": True}}},
        "/executors/hpa/enabled",
    ),
    "SQLite on a volume shared by nodes": (
        "sqlite",
        {"database": {"sqlite": {"accessMode": "ReadWriteMany"}}},
        "/database/sqlite/accessMode",
    ),
    "SQLite and PostgreSQL": (
        "sqlite",
        {"database": {"postgres": {"url": "postgres://db/spool"}}},
        "/database/postgres/url",
    ),
    "SQLite and alerts on a scheduler": (
        "sqlite",
        {"monitoring": {"enabled": True, "rules": {"enabled": True}}},
        "/monitoring/rules/enabled",
    ),
    "an unknown database kind": ("minimal", {"database": {"kind": "mysql"}}, "/database/kind"),
    "KEDA and HPA": ("keda", {"executors": {"hpa": {"enabled": True}}}, "/executors/hpa/enabled"),
    "KEDA with minReplicas above maxReplicas": (
        "keda",
        {"executors": {"keda": {"minReplicas": 41}}},
        "executors.keda.minReplicas is 41, more than maxReplicas (40)",
    ),
    "HPA with minReplicas above maxReplicas": (
        "hpa",
        {"executors": {"hpa": {"maxReplicas": 1}}},
        "executors.hpa.minReplicas is 2",
    ),
    "API with minReplicas above maxReplicas": (
        "keda",
        {"api": {"hpa": {"maxReplicas": 1}}},
        "api.hpa.minReplicas is 2",
    ),
    "HPA with zero minReplicas": (
        "hpa",
        {"executors": {"hpa": {"minReplicas": 0}}},
        "/executors/hpa/minReplicas",
    ),
    "HPA without a CPU request": (
        "hpa",
        {"executors": {"resources": {"requests": {"cpu": None}}}},
        "set executors.resources.requests.cpu",
    ),
    "a drain timeout below the row limit": (
        "minimal",
        {"executors": {"drainTimeoutSeconds": 300}},
        "executors.drainTimeoutSeconds is 300, less than rows.limitSeconds (900)",
    ),
    "a termination grace period below the drain timeout": (
        "minimal",
        {"executors": {"terminationGracePeriodSeconds": 900}},
        "is 900, less than drainTimeoutSeconds plus rows.marginSeconds (900 + 30)",
    ),
    "a row limit above the drain timeout": (
        "hpa",
        {"rows": {"limitSeconds": 7200}},
        "less than rows.limitSeconds (7200)",
    ),
    "a margin that is too short": ("minimal", {"rows": {"marginSeconds": 5}}, "/rows/marginSeconds"),
    "a secret and a URL for the database": (
        "minimal",
        {"database": {"postgres": {"url": "postgres://db/spool"}}},
        "/database/postgres/url",
    ),
    "a secret and a value for the token": (
        "second-scheduler",
        {"token": {"value": "a-token-of-sixteen-characters"}},
        "/token/value",
    ),
    "a short token": ("minimal", {"token": {"value": "secret"}}, "/token/value"),
    "a secret and values for the S3 keys": (
        "ha",
        {"s3": {"accessKeyId": "a", "secretAccessKey": "b"}},
        "/s3/accessKeyId",
    ),
    "an access key ID without its secret": (
        "minimal",
        {"s3": {"accessKeyId": "a"}},
        "s3.accessKeyId and s3.secretAccessKey go together",
    ),
    "a role and keys": ("aws-role", {"s3": {"existingSecret": "keys"}}, "remove one"),
    "a role for an account that the chart does not create": (
        "aws-role",
        {"serviceAccount": {"create": False}},
        "serviceAccount.create",
    ),
    "an endpoint without a scheme": ("minimal", {"s3": {"endpoint": "minio:9000"}}, "/s3/endpoint"),
    "an ingress without a host": ("ingress", {"ingress": {"host": ""}}, "ingress.host is not set"),
    "an ingress without the API": ("ingress", {"api": {"enabled": False}}, "/api/enabled"),
    "alerts without monitoring": ("monitoring", {"monitoring": {"enabled": False}}, "/monitoring/enabled"),
    "a token in arguments": (
        "minimal",
        {"executors": {"extraArgs": ["--token=abc"]}},
        "/executors/extraArgs/0",
    ),
    "a password in arguments": (
        "minimal",
        {"api": {"extraArgs": ["--database=postgres://u:p@db/s"]}},
        "/api/extraArgs/0",
    ),
    "pods that run as root": ("minimal", {"podSecurity": {"runAsUser": 0}}, "/podSecurity/runAsUser"),
    "an unknown kind of http sources": ("minimal", {"httpSources": "private"}, "/httpSources"),
    "an unknown limit": ("minimal", {"limits": {"max-frames": 1}}, "max-frames"),
    "a misspelt section": ("minimal", {"executor": {"replicas": 2}}, "'executor'"),
    "a misspelt value in a section": ("minimal", {"executors": {"replica": 2}}, "'replica'"),
    "a number as a string": ("minimal", {"executors": {"replicas": "2"}}, "/executors/replicas"),
    "a malformed digest": ("minimal", {"image": {"digest": "latest"}}, "/image/digest"),
}


@pytest.mark.parametrize("name", CASES)
def test_contradictory_values_are_refused(name):
    base, changes, message = CASES[name]
    with pytest.raises(Exception) as error:
        render(merged(VALUES[base], changes))
    assert message in str(error.value)


def test_values_at_their_limits_are_accepted():
    executors = {"drainTimeoutSeconds": 900, "terminationGracePeriodSeconds": 930}
    assert render(merged(VALUES["minimal"], {"rows": {"limitSeconds": 900}, "executors": executors}))
    assert render(merged(VALUES["keda"], {"executors": {"keda": {"minReplicas": 40}}}))
    assert render({**VALUES["minimal"], "global": {"anything": True}})
