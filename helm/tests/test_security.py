"""Are pods taken where the Pod Security Standard `restricted` is enforced?

Source: Kubernetes documentation, "Pod Security Standards", profiles Baseline and Restricted.
"""

import copy

import pytest

from conftest import RENDERED, container, each_workload, template

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def faults(pod):
    """What of a template of pods is not as the standard wants it."""
    spec, about, found = pod["spec"], pod["spec"].get("securityContext", {}), []
    found += [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"sysctl {entry['name']}" for entry in about.get("sysctls", [])]
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    for only in spec["containers"] + spec.get("initContainers", []) + spec.get("ephemeralContainers", []):
        own = only.get("securityContext", {})
        if own.get("privileged"):
            found.append("privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or set(own["capabilities"].get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append("capabilities")
        if own.get("runAsNonRoot", about.get("runAsNonRoot")) is not True:
            found.append("runAsNonRoot")
        if own.get("runAsUser", about.get("runAsUser")) == 0:
            found.append("runAsUser")
        seccomp = own.get("seccompProfile", about.get("seccompProfile", {})).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
        if own.get("procMount", "Default") != "Default":
            found.append("procMount")
        if {**about.get("seLinuxOptions", {}), **own.get("seLinuxOptions", {})}.keys() & {"user", "role"}:
            found.append("seLinuxOptions")
        if own.get("appArmorProfile", about.get("appArmorProfile", {})).get("type") == "Unconfined":
            found.append("appArmorProfile")
        found += [f"hostPort {port['hostPort']}" for port in only.get("ports", []) if "hostPort" in port]
    return found


@pytest.mark.parametrize("workload", each_workload())
def test_restricted(workload):
    assert faults(template(workload)) == []


@pytest.mark.parametrize("workload", each_workload())
def test_more_than_restricted(workload):
    spec = template(workload)["spec"]
    assert container(workload)["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert "initContainers" not in spec


def set_in(part, key, value):
    return lambda spec: part(spec).__setitem__(key, value)


def pod_level(spec):
    return spec["securityContext"]


def own_level(spec):
    return spec["containers"][0]["securityContext"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (set_in(own_level, "privileged", True), "privileged"),
        (set_in(own_level, "allowPrivilegeEscalation", True), "allowPrivilegeEscalation"),
        (set_in(own_level, "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "capabilities"),
        (set_in(own_level, "capabilities", {}), "capabilities"),
        (set_in(own_level, "runAsUser", 0), "runAsUser"),
        (set_in(own_level, "seccompProfile", {"type": "Unconfined"}), "seccompProfile"),
        (set_in(own_level, "procMount", "Unmasked"), "procMount"),
        (set_in(pod_level, "runAsNonRoot", False), "runAsNonRoot"),
        (set_in(pod_level, "sysctls", [{"name": "kernel.msgmax"}]), "sysctl kernel.msgmax"),
        (set_in(lambda spec: spec, "hostNetwork", True), "hostNetwork"),
        (lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}), "volume hostPath"),
        (set_in(lambda spec: spec["containers"][0]["ports"][0], "hostPort", 80), "hostPort 80"),
    ],
)
def test_faults_are_found(change, fault):
    pod = copy.deepcopy(template(RENDERED["minimal"].role("executor")))
    change(pod["spec"])
    assert faults(pod) == [fault]
