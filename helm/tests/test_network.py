"""Do the network policies let through what the roles say to each other, and nothing else?

Policies are worked out as Kubernetes does: what some policy of a pod lets through passes, and both ends have to agree.
"""

import dataclasses
import ipaddress

import pytest

from conftest import NAMESPACE, RENDERED, container, flags, template

POLICED = [name for name, objects in RENDERED.items() if objects.of("NetworkPolicy") and objects.role("executor")]
PUBLIC, PRIVATE, METADATA = "93.184.216.34", "10.11.12.13", "169.254.169.254"


@dataclasses.dataclass
class Place:
    """A pod, or an address elsewhere (without a namespace)."""

    labels: dict
    namespace: str | None = NAMESPACE
    address: str = "10.244.0.7"
    ports: dict = dataclasses.field(default_factory=dict)


def pod(objects, role):
    workload = objects.role(role)
    ports = {port["name"]: port["containerPort"] for port in container(workload)["ports"]}
    return Place(template(workload)["metadata"]["labels"], ports=ports)


def elsewhere(address):
    return Place({}, None, address)


def matches(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer, place):
    if block := peer.get("ipBlock"):
        address = ipaddress.ip_address(place.address)
        within = [address in ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
        return within[0] and not any(within[1:])
    if place.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": place.namespace}):
            return False
    elif place.namespace != NAMESPACE:
        return False
    return matches(peer.get("podSelector", {}), place.labels)


def lets(policies, own, direction, other, port, protocol, listener):
    """Does a pod let something through? `listener` is the end whose port it is."""
    if own.namespace != NAMESPACE:
        return True
    ours = [p["spec"] for p in policies if matches(p["spec"]["podSelector"], own.labels) and direction in p["spec"]["policyTypes"]]
    if not ours:
        return True
    rules = [rule for spec in ours for rule in spec.get(direction.lower(), [])]

    def at(wanted):
        if wanted.get("protocol", "TCP") != protocol:
            return False
        number = wanted["port"] if isinstance(wanted["port"], int) else listener.ports.get(wanted["port"])
        return number is not None and number <= port <= wanted.get("endPort", number)

    def is_for(rule):
        peers = rule.get("from" if direction == "Ingress" else "to")
        return peers is None or any(is_peer(peer, other) for peer in peers)

    return any(is_for(rule) and ("ports" not in rule or any(map(at, rule["ports"]))) for rule in rules)


def passes(objects, source, target, port, protocol="TCP"):
    policies = objects.of("NetworkPolicy")
    out = lets(policies, source, "Egress", target, port, protocol, target)
    return out and lets(policies, target, "Ingress", source, port, protocol, target)


def stranger(namespace=NAMESPACE, **labels):
    return Place({key.replace("_", "-"): value for key, value in labels.items()}, namespace, "10.244.3.9")


@pytest.mark.parametrize("name", POLICED)
def test_roles_reach_what_they_need(name):
    objects = RENDERED[name]
    scheduler, executor = pod(objects, "scheduler"), pod(objects, "executor")
    assert passes(objects, executor, scheduler, int(flags(objects.role("executor"))[1]["--scheduler"].rpartition(":")[2]))
    # Ports of tasks and of what they gave are any that the system has free.
    for port in (1024, 32768, 60999, 65535):
        assert passes(objects, scheduler, executor, port) and passes(objects, executor, executor, port)


@pytest.mark.parametrize("name", POLICED)
def test_roles_reach_nothing_else(name):
    objects = RENDERED[name]
    scheduler, executor = pod(objects, "scheduler"), pod(objects, "executor")
    assert not passes(objects, scheduler, executor, 22)
    assert not passes(objects, executor, scheduler, 22)
    for source in (scheduler, executor):
        for address, port in ((METADATA, 80), (PRIVATE, 80), (PRIVATE, 22), (PUBLIC, 22), (PRIVATE, 6443)):
            assert not passes(objects, source, elsewhere(address), port), (address, port)
    assert not passes(objects, executor, elsewhere(PRIVATE), 5432), "who encodes has nothing to say to the database"
    if objects.role("api"):
        server = pod(objects, "api")
        for target, port in ((scheduler, 50050), (executor, 9090), (executor, 40000)):
            assert not passes(objects, server, target, port) and not passes(objects, target, server, 8080)
        for address, port in ((METADATA, 80), (PRIVATE, 80), (PUBLIC, 22), (PRIVATE, 6443)):
            assert not passes(objects, server, elsewhere(address), port), (address, port)


@pytest.mark.parametrize("name", POLICED)
def test_strangers_reach_the_server_at_most(name):
    objects = RENDERED[name]
    for who in (stranger(), stranger("other")):
        assert not passes(objects, who, pod(objects, "scheduler"), 50050)
        assert not passes(objects, who, pod(objects, "executor"), 40000)
        assert not passes(objects, who, pod(objects, "executor"), 9090)
        if objects.role("api"):
            assert passes(objects, who, pod(objects, "api"), 8080) == (name != "restricted")


def test_sources_webhooks_and_the_bucket_on_the_internet_are_reached():
    objects = RENDERED["minimal"]
    for role in ("scheduler", "executor", "api"):
        for port in (80, 443):
            assert passes(objects, pod(objects, role), elsewhere(PUBLIC), port)
        assert not passes(objects, pod(objects, role), elsewhere(PRIVATE), 443)
    for role in ("scheduler", "api"):
        assert passes(objects, pod(objects, role), elsewhere(PRIVATE), 5432)
    for role in ("scheduler", "executor", "api"):
        assert passes(objects, pod(objects, role), elsewhere(PRIVATE), 53, "UDP")


def test_a_bucket_in_the_cluster_is_reached_at_its_port():
    objects = RENDERED["ha"]
    for role in ("scheduler", "executor", "api"):
        assert passes(objects, pod(objects, role), stranger("storage"), 9000)
        assert not passes(objects, pod(objects, role), stranger("storage"), 443)


def test_named_places_are_the_only_ones():
    objects = RENDERED["restricted"]
    scheduler, server, executor = (pod(objects, role) for role in ("scheduler", "api", "executor"))
    database, bucket, names = stranger(app="postgres"), stranger("storage"), stranger("kube-system", k8s_app="kube-dns")
    for port in (5432, 6432):
        assert passes(objects, scheduler, database, port) and passes(objects, server, database, port)
    assert not passes(objects, scheduler, elsewhere(PRIVATE), 5432)
    for source in (scheduler, server, executor):
        assert passes(objects, source, bucket, 9000) and not passes(objects, source, elsewhere(PUBLIC), 9000)
        assert passes(objects, source, names, 53, "UDP") and not passes(objects, source, elsewhere(PRIVATE), 53, "UDP")
        assert passes(objects, source, elsewhere("169.254.170.23"), 80), "asked for by extraEgress"
    assert passes(objects, stranger("ingress"), server, 8080)
    assert passes(objects, stranger(app="notebook"), scheduler, 50050)
    assert not passes(objects, stranger("other", app="notebook"), scheduler, 50050)


def test_prometheus_and_keda_come_in_where_they_are_wanted():
    for name in POLICED:
        objects = RENDERED[name]
        scraped, scaled = bool(objects.of("PodMonitor")), bool(objects.of("ScaledObject"))
        assert passes(objects, stranger("monitoring"), pod(objects, "executor"), 9090) == scraped
        assert passes(objects, stranger("monitoring"), pod(objects, "scheduler"), 50050) == scraped
        assert passes(objects, stranger("keda"), pod(objects, "scheduler"), 50050) == scaled
        if scraped and objects.role("api"):
            assert passes(objects, stranger("monitoring"), pod(objects, "api"), 8080)


def test_the_one_pod_of_sqlite():
    for name, all_come_in in (("sqlite", True), ("sqlite-bucket", False)):
        objects = RENDERED[name]
        one = pod(objects, "all-in-one")
        assert passes(objects, stranger("other"), one, 8080) == all_come_in
        assert passes(objects, one, elsewhere(PUBLIC), 443) and passes(objects, one, elsewhere(PUBLIC), 80)
        assert not passes(objects, one, elsewhere(METADATA), 80) and not passes(objects, one, elsewhere(PRIVATE), 5432)
    assert passes(objects, stranger(app="portal"), one, 8080) and passes(objects, stranger("monitoring"), one, 8080)


def test_pods_that_no_other_policy_knew_would_reach_nothing(objects):
    policies = objects.of("NetworkPolicy")
    if policies:
        [deny] = [policy["spec"] for policy in policies if policy["metadata"]["name"].endswith("-default-deny")]
        assert deny.keys() == {"podSelector", "policyTypes"} and set(deny["policyTypes"]) == {"Ingress", "Egress"}
        for workload in objects.workloads():
            assert matches(deny["podSelector"], template(workload)["metadata"]["labels"])


def test_there_are_none_where_they_are_not_wanted():
    assert not RENDERED["aws-role"].of("NetworkPolicy")
