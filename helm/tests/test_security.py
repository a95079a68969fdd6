"""Pods comply with the Pod Security Standard `restricted`.

Source: Kubernetes documentation, "Pod Security Standards", profiles Baseline and Restricted.
"""

import copy

import pytest

from conftest import RENDERED, container, each_workload, template

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(pod):
    """Returns the violations of the standard in a pod template."""
    spec, context, found = pod["spec"], pod["spec"].get("securityContext", {}), []
    found += [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"sysctl {entry['name']}" for entry in context.get("sysctls", [])]
    for volume in spec.get("volumes", []):
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    for only in spec["containers"] + spec.get("initContainers", []) + spec.get("ephemeralContainers", []):
        own = only.get("securityContext", {})
        if own.get("privileged"):
            found.append("privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append("capabilities")
        if own.get("runAsNonRoot", context.get("runAsNonRoot")) is not True:
            found.append("runAsNonRoot")
        if own.get("runAsUser", context.get("runAsUser")) == 0:
            found.append("runAsUser")
        seccomp = own.get("seccompProfile", context.get("seccompProfile", {})).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
        if own.get("procMount", "Default") != "Default":
            found.append("procMount")
        if {**context.get("seLinuxOptions", {}), **own.get("seLinuxOptions", {})}.keys() & {"user", "role"}:
            found.append("seLinuxOptions")
        if own.get("appArmorProfile", context.get("appArmorProfile", {})).get("type") == "Unconfined":
            found.append("appArmorProfile")
        found += [f"hostPort {port['hostPort']}" for port in only.get("ports", []) if "hostPort" in port]
    return found


@pytest.mark.parametrize("workload", each_workload())
def test_pods_comply_with_the_restricted_standard(workload):
    assert violations(template(workload)) == []


@pytest.mark.parametrize("workload", each_workload())
def test_pods_have_a_read_only_root_and_no_service_account_token(workload):
    spec = template(workload)["spec"]
    assert container(workload)["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert "initContainers" not in spec


def setting(part, key, value):
    return lambda spec: part(spec).__setitem__(key, value)


def pod_level(spec):
    return spec["securityContext"]


def own_level(spec):
    return spec["containers"][0]["securityContext"]


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        (setting(own_level, "privileged", True), "privileged"),
        (setting(own_level, "allowPrivilegeEscalation", True), "allowPrivilegeEscalation"),
        (setting(own_level, "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "capabilities"),
        (setting(own_level, "capabilities", {}), "capabilities"),
        (setting(own_level, "runAsUser", 0), "runAsUser"),
        (setting(own_level, "seccompProfile", {"type": "Unconfined"}), "seccompProfile"),
        (setting(own_level, "procMount", "Unmasked"), "procMount"),
        (setting(pod_level, "runAsNonRoot", False), "runAsNonRoot"),
        (setting(pod_level, "sysctls", [{"name": "kernel.msgmax"}]), "sysctl kernel.msgmax"),
        (setting(lambda spec: spec, "hostNetwork", True), "hostNetwork"),
        (lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}), "volume hostPath"),
        (setting(lambda spec: spec["containers"][0]["ports"][0], "hostPort", 80), "hostPort 80"),
    ],
)
def test_violations_are_found(change, violation):
    pod = copy.deepcopy(template(RENDERED["minimal"].role("executor")))
    change(pod["spec"])
    assert violations(pod) == [violation]
