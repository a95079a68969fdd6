"""The network policies allow the connections between the roles, and no others.

Policies are evaluated as Kubernetes does: at both ends, some policy of the pod must allow the connection.
"""

import dataclasses
import ipaddress

import pytest

from conftest import NAMESPACE, RENDERED, container, flags, template

POLICED = [
    name for name, objects in RENDERED.items() if objects.of("NetworkPolicy") and objects.role("executor")
]
PUBLIC, PRIVATE, METADATA = "93.184.216.34", "10.11.12.13", "169.254.169.254"


@dataclasses.dataclass
class Endpoint:
    """A pod, or an address outside the cluster (without a namespace)."""

    labels: dict
    namespace: str | None = NAMESPACE
    address: str = "10.244.0.7"
    ports: dict = dataclasses.field(default_factory=dict)


def pod(objects, role):
    workload = objects.role(role)
    ports = {port["name"]: port["containerPort"] for port in container(workload)["ports"]}
    return Endpoint(template(workload)["metadata"]["labels"], ports=ports)


def outside(address):
    return Endpoint({}, None, address)


def matches(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer, endpoint):
    if block := peer.get("ipBlock"):
        address = ipaddress.ip_address(endpoint.address)
        within = [address in ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
        return within[0] and not any(within[1:])
    if endpoint.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": endpoint.namespace}):
            return False
    elif endpoint.namespace != NAMESPACE:
        return False
    return matches(peer.get("podSelector", {}), endpoint.labels)


def allows(policies, own, direction, other, port, protocol, listener):
    """Returns whether a pod's policies allow a connection. `listener` is the end that listens at the port."""
    if own.namespace != NAMESPACE:
        return True
    specs = [policy["spec"] for policy in policies]
    ours = [s for s in specs if matches(s["podSelector"], own.labels) and direction in s["policyTypes"]]
    if not ours:
        return True
    rules = [rule for spec in ours for rule in spec.get(direction.lower(), [])]

    def covers(range_):
        if range_.get("protocol", "TCP") != protocol:
            return False
        number = range_["port"] if isinstance(range_["port"], int) else listener.ports.get(range_["port"])
        return number is not None and number <= port <= range_.get("endPort", number)

    def applies(rule):
        peers = rule.get("from" if direction == "Ingress" else "to")
        return peers is None or any(is_peer(peer, other) for peer in peers)

    return any(applies(rule) and ("ports" not in rule or any(map(covers, rule["ports"]))) for rule in rules)


def connects(objects, source, target, port, protocol="TCP"):
    policies = objects.of("NetworkPolicy")
    egress = allows(policies, source, "Egress", target, port, protocol, target)
    return egress and allows(policies, target, "Ingress", source, port, protocol, target)


def other_pod(namespace=NAMESPACE, **labels):
    return Endpoint({key.replace("_", "-"): value for key, value in labels.items()}, namespace, "10.244.3.9")


@pytest.mark.parametrize("name", POLICED)
def test_executors_reach_the_scheduler_and_nothing_reaches_them(name):
    objects = RENDERED[name]
    scheduler, executor = pod(objects, "scheduler"), pod(objects, "executor")
    address = flags(objects.role("executor"))[1]["--scheduler"]
    assert connects(objects, executor, scheduler, int(address.rpartition(":")[2]))
    for port in (1024, 9090, 32768, 50050, 60999, 65535):
        assert not connects(objects, scheduler, executor, port)
        assert not connects(objects, executor, executor, port)


@pytest.mark.parametrize("name", POLICED)
def test_roles_reach_no_other_address(name):
    objects = RENDERED[name]
    scheduler, executor = pod(objects, "scheduler"), pod(objects, "executor")
    assert not connects(objects, scheduler, executor, 22)
    assert not connects(objects, executor, scheduler, 22)
    for source in (scheduler, executor):
        for address, port in ((METADATA, 80), (PRIVATE, 80), (PRIVATE, 22), (PUBLIC, 22), (PRIVATE, 6443)):
            assert not connects(objects, source, outside(address), port), (address, port)
    assert not connects(objects, executor, outside(PRIVATE), 5432), "executors do not use the database"
    if objects.role("api"):
        api = pod(objects, "api")
        for target, port in ((scheduler, 50050), (executor, 9090), (executor, 40000)):
            assert not connects(objects, api, target, port) and not connects(objects, target, api, 8080)
        for address, port in ((METADATA, 80), (PRIVATE, 80), (PUBLIC, 22), (PRIVATE, 6443)):
            assert not connects(objects, api, outside(address), port), (address, port)


@pytest.mark.parametrize("name", POLICED)
def test_other_pods_reach_only_the_api(name):
    objects = RENDERED[name]
    for source in (other_pod(), other_pod("other")):
        assert not connects(objects, source, pod(objects, "scheduler"), 50050)
        assert not connects(objects, source, pod(objects, "executor"), 40000)
        assert not connects(objects, source, pod(objects, "executor"), 9090)
        if objects.role("api"):
            assert connects(objects, source, pod(objects, "api"), 8080) == (name != "restricted")


def test_sources_webhooks_and_the_bucket_on_the_internet_are_reachable():
    objects = RENDERED["minimal"]
    for role in ("scheduler", "executor", "api"):
        for port in (80, 443):
            assert connects(objects, pod(objects, role), outside(PUBLIC), port)
        assert not connects(objects, pod(objects, role), outside(PRIVATE), 443)
    for role in ("scheduler", "api"):
        assert connects(objects, pod(objects, role), outside(PRIVATE), 5432)
    for role in ("scheduler", "executor", "api"):
        assert connects(objects, pod(objects, role), outside(PRIVATE), 53, "UDP")


def test_a_bucket_in_the_cluster_is_reachable_at_its_port_only():
    objects = RENDERED["ha"]
    for role in ("scheduler", "executor", "api"):
        assert connects(objects, pod(objects, role), other_pod("storage"), 9000)
        assert not connects(objects, pod(objects, role), other_pod("storage"), 443)


def test_named_peers_are_the_only_ones():
    objects = RENDERED["restricted"]
    scheduler, api, executor = (pod(objects, role) for role in ("scheduler", "api", "executor"))
    database, bucket = other_pod(app="postgres"), other_pod("storage")
    names = other_pod("kube-system", k8s_app="kube-dns")
    for port in (5432, 6432):
        assert connects(objects, scheduler, database, port) and connects(objects, api, database, port)
    assert not connects(objects, scheduler, outside(PRIVATE), 5432)
    for source in (scheduler, api, executor):
        assert connects(objects, source, bucket, 9000) and not connects(
            objects, source, outside(PUBLIC), 9000
        )
        assert connects(objects, source, names, 53, "UDP")
        assert not connects(objects, source, outside(PRIVATE), 53, "UDP")
        assert connects(objects, source, outside("169.254.170.23"), 80), "allowed by extraEgress"
    assert connects(objects, other_pod("ingress"), api, 8080)
    assert connects(objects, other_pod(app="notebook"), scheduler, 50050)
    assert not connects(objects, other_pod("other", app="notebook"), scheduler, 50050)


def test_prometheus_and_keda_reach_the_pods_when_enabled():
    for name in POLICED:
        objects = RENDERED[name]
        scraped, scaled = bool(objects.of("PodMonitor")), bool(objects.of("ScaledObject"))
        assert connects(objects, other_pod("monitoring"), pod(objects, "executor"), 9090) == scraped
        assert connects(objects, other_pod("monitoring"), pod(objects, "scheduler"), 9090) == scraped
        assert connects(objects, other_pod("keda"), pod(objects, "scheduler"), 50050) == scaled
        if scraped and objects.role("api"):
            assert connects(objects, other_pod("monitoring"), pod(objects, "api"), 8080)


def test_the_all_in_one_pod_is_reachable_as_configured():
    for name, is_open in (("sqlite", True), ("sqlite-bucket", False)):
        objects = RENDERED[name]
        one = pod(objects, "all-in-one")
        assert connects(objects, other_pod("other"), one, 8080) == is_open
        assert connects(objects, one, outside(PUBLIC), 443) and connects(objects, one, outside(PUBLIC), 80)
        assert not connects(objects, one, outside(METADATA), 80)
        assert not connects(objects, one, outside(PRIVATE), 5432)
    assert connects(objects, other_pod(app="portal"), one, 8080)
    assert connects(objects, other_pod("monitoring"), one, 8080)


def test_the_default_policy_denies_everything(objects):
    policies = objects.of("NetworkPolicy")
    if policies:
        [deny] = [p["spec"] for p in policies if p["metadata"]["name"].endswith("-default-deny")]
        assert deny.keys() == {"podSelector", "policyTypes"}
        assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
        for workload in objects.workloads():
            assert matches(deny["podSelector"], template(workload)["metadata"]["labels"])


def test_disabled_policies_are_not_rendered():
    assert not RENDERED["aws-role"].of("NetworkPolicy")
