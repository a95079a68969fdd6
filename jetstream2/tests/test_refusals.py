"""Bad input of spool-cluster: a message that names what is wrong and what to do, before anything is created."""

import re

import pytest
from conftest import FOLDER


def refused(bench, *arguments, code, says, environment=None):
    before = len(bench.cloud.created)
    said = bench.run(*arguments, code=code, environment=environment)
    for words in says:
        assert words in said, said
    assert len(bench.cloud.created) == before, f"something was created: {bench.cloud.created}"
    assert not (bench.state / "settings").exists() or before


def test_credentials(bench):
    without = {key: value for key, value in bench.environment.items() if not key.startswith("OS_")}
    refused(bench, "up", *bench.wanted(), "--yes", code=4, says=["no credentials", "openrc.sh", "OS_CLOUD"], environment=without)
    wrong = bench.environment | {"OS_APPLICATION_CREDENTIAL_SECRET": "wrong"}
    refused(bench, "up", *bench.wanted(), "--yes", code=4, says=["refuses these credentials", "expired"], environment=wrong)
    refused(bench, "down", "--name=demo", "--yes", code=4, says=["refuses these credentials"], environment=wrong)


# None of these needs the cloud for more than a token.
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "Demo-1"}, "--name Demo-1: at most 16 small letters and digits"),
        ({"key": None}, "--key is missing"),
        ({"ssh_from": None}, "--ssh-from is missing"),
        ({"ssh_from": "everywhere"}, "--ssh-from everywhere: a range such as 203.0.113.7/32"),
        ({"executors": "two"}, "--executors two: a whole number"),
        ({"executors": "500"}, "--executors 500: 200 at most"),
        ({"drain_timeout": "7200"}, "--drain-timeout 7200: 1 to 3600 seconds, since the unit's TimeoutStopSec"),
        ({"scratch": "5"}, "--scratch 5: 10 GB at least"),
        ({"idle_timeout": "5"}, "--idle-timeout 5: 60 seconds at least"),
        ({"api": "world"}, "--api world: none, local or a range"),
        ({"database": "mysql://db/jobs"}, "--database mysql://db/jobs: postgres://…"),
        ({"database": "postgres://u:a b@db/jobs"}, "--database postgres://u:a b@db/jobs: letters, digits and"),
        ({"network_cidr": "10.0.0.0/8"}, "--network-cidr 10.0.0.0/8: a private /24"),
        ({"bucket": "My_Bucket"}, "--bucket My_Bucket: 3 to 47 small letters"),
        ({"binary_url": "https://example.com/spool"}, "--binary and --binary-url contradict each other"),
        ({"binary": None}, "--binary FILE or --binary-url URL is missing"),
        ({"binary": "/nowhere/spool"}, "--binary /nowhere/spool: no such file"),
        ({"binary": None, "binary_url": "https://example.com/spool"}, "--binary-url wants --binary-sha256"),
        ({"colour": "red"}, "there is no option --colour"),
    ],
)
def test_values(bench, changed, says):
    refused(bench, "up", *bench.wanted(**changed), "--yes", code=2, says=[says])


def test_all_problems_are_told_at_once(bench):
    refused(
        bench,
        "plan",
        *bench.wanted(key=None, drain_timeout=0, scratch=3),
        code=2,
        says=["--key is missing", "--drain-timeout 0", "--scratch 3", "nothing was created"],
    )


def test_names_that_the_cloud_does_not_know(bench):
    wrong = bench.wanted(
        flavor="m9.huge",
        scheduler_flavor="m3.xl",
        key="yours",
        image="Featured-Ubuntu99",
        external_network="outside",
        binary=None,
        binary_url=f"{bench.running.url}/nothing",
        binary_sha256="0" * 64,
    )
    # The fake has no m3.xl, which flavors.csv knows.
    bench.cloud.unknown = type("Ignored", (list,), {"append": lambda *_: None})()
    refused(
        bench,
        "up",
        *wrong,
        "--yes",
        code=3,
        says=[
            "--flavor m9.huge: flavors.csv has no rate for it; it has m3.tiny",
            "--scheduler-flavor m3.xl: this project cannot use it",
            "--key yours: no such keypair",
            "--image Featured-Ubuntu99: no such image",
            "--external-network outside: no such network",
            "/nothing: nothing is there to fetch",
        ],
    )


def test_quota(bench):
    bench.cloud.quota |= {"instances": 2, "cores": 9, "ram": 30000, "volumes": 1, "gigabytes": 99}
    refused(
        bench,
        "up",
        *bench.wanted(scratch=50),
        "--yes",
        code=1,
        says=[
            "3 more instances are wanted, and 0 of 2 are in use: lower --executors",
            "10 more cores are wanted, and 0 of 9",
            "36000 more MB of memory are wanted",
            "2 more volumes are wanted, and 0 of 1",
            "100 more GB of volumes are wanted, and 0 of 99",
        ],
    )
    bench.cloud.quota |= {"instances": -1, "cores": 10, "ram": 36000}
    bench.run("plan", *bench.wanted())


def test_growing_beyond_the_quota(bench):
    bench.run("up", *bench.wanted(executors=1), "--yes")
    bench.cloud.quota["cores"] = 10
    refused(bench, "scale", "3", "--name=demo", "--yes", code=1, says=["8 more cores are wanted, and 6 of 10 are in use"])


def test_buckets_of_others(bench):
    bench.cloud.others_buckets.add("taken")
    refused(
        bench,
        "up",
        *bench.wanted(bucket="taken"),
        "--yes",
        code=1,
        says=["--bucket taken: another project has a bucket of this name"],
    )
    bench.cloud.buckets["mine-already"] = {"properties": {}, "objects": {}}
    refused(
        bench,
        "up",
        *bench.wanted(bucket="mine-already"),
        "--yes",
        code=1,
        says=["--bucket mine-already: this project has it already", "--use-bucket"],
    )
    refused(
        bench,
        "up",
        *bench.wanted(bucket="not-there"),
        "--use-bucket",
        "--yes",
        code=1,
        says=["this project has no bucket not-there"],
    )
    refused(bench, "up", *bench.wanted(), "--use-bucket", "--yes", code=2, says=["--use-bucket wants --bucket"])


def test_names_of_others(bench):
    bench.cloud.add("networks", {"name": "demo-network", "tags": []})
    refused(
        bench,
        "up",
        *bench.wanted(),
        "--yes",
        code=1,
        says=["there is already: network demo-network, without the mark", "another --name"],
    )


def test_a_cluster_that_was_made_elsewhere(bench):
    bench.run("up", *bench.wanted(executors=0), "--yes")
    bench.state.rename(bench.folder / "elsewhere")
    refused(bench, "up", *bench.wanted(executors=0), "--yes", code=1, says=["its settings are not in", "copy that folder"])
    refused(bench, "scale", "2", "--name=demo", "--yes", code=3, says=["are not in", "run this where the cluster was made"])
    # To take it down nothing is needed but its name.
    bench.run("down", "--name=demo", "--yes", "--delete-bucket")
    assert bench.cloud.left() == {}


def test_other_settings_for_a_cluster_that_is_there(bench):
    bench.run("up", *bench.wanted(executors=0), "--yes")
    refused(
        bench,
        "up",
        *bench.wanted(executors=0, flavor="m3.medium"),
        "--yes",
        code=2,
        says=["made with other settings", "--flavor is m3.medium, and was m3.quad"],
    )
    bench.binary.write_bytes(b"another binary")
    refused(bench, "up", *bench.wanted(executors=0), "--yes", code=2, says=["--binary-sha256 is"])


def test_commands(bench):
    refused(bench, "grow", code=2, says=['there is no command "grow"'])
    refused(bench, "scale", "--name=demo", code=2, says=["scale wants one number of executors"])
    refused(bench, "up", "4", *bench.wanted(), code=2, says=['up takes no "4"'])
    refused(bench, "scale", "many", "--name=demo", code=2, says=["many: a number of executors from 0 to 200"])
    refused(bench, "scale", "3", "--name=demo", "--yes", code=3, says=["there is no cluster demo"])
    refused(bench, "up", *bench.wanted(), code=2, says=["say --yes"])
    assert "spool-cluster COMMAND" in bench.run("help")


def test_gpus_are_said_to_have_no_encoder(bench):
    assert "a quarter of an A100: no NVENC" in bench.run("plan", *bench.wanted(flavor="g3.medium", executors=1))


def test_every_option_that_is_told_is_taken():
    text = (FOLDER / "spool-cluster").read_text()
    text = text[text.index("Options:") : text.index("Credentials are")]
    told = {line.split()[0] for line in text.splitlines() if line.startswith("  --")}
    taken = (FOLDER / "lib" / "settings.bash").read_text()
    taken = taken[taken.index("declare -A setting=(") : taken.index("\n)\n")]
    ours = {f"--{line}" for line in re.findall(r"\[([a-z0-9-]+)\]=", taken)}
    assert told == ours
