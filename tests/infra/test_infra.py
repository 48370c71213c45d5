"""What infra/ says agrees with the code, with constraints.txt and with itself."""

import json
import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from manifests import s3_store
from manifests.part import Part
from tests.servers import moto_server

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"registry.example.com/archiver:{VERSION}-ray{PINS['ray']}"

PART = "images/" + Part("20260131T235959-0123456789", 0, 99, "0" * 16, 1, 100, "a", "b").path
HOT = (
    "FORMAT.md",
    "images/_delta_log/00000000000000000001.json",
    "images/_delta_log/00000000000000000010.checkpoint.parquet",
    "runs/20260131T235959-0123456789/plan.parquet",
    "specs/0123456789abcdef.json",
    "weights/00.safetensors",
)


def test_the_ray_cluster_is_valid_and_runs_our_image() -> None:
    cluster = yaml.safe_load((INFRA / "ray-cluster-aws.yaml").read_text())
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    assert cluster["docker"]["image"] == IMAGE
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert "GPU" not in types["head"]["resources"]
    assert (types["gpu"]["resources"]["GPU"], types["gpu"]["min_workers"]) == (1, 1)
    assert types["gpu"]["max_workers"] <= cluster["max_workers"]


def test_the_ray_job_agrees_with_itself_and_the_pins() -> None:
    spec = yaml.safe_load((INFRA / "rayjob.yaml").read_text())["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == PINS["ray"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert pod["serviceAccountName"] == "archiver"
        assert pod["securityContext"]["runAsNonRoot"]
        # KubeRay tells Ray the limits: without them a pod claims the whole node's processors.
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert [
        ("nvidia.com/gpu" in g["template"]["spec"]["containers"][0]["resources"]["limits"]) for g in groups
    ] == [
        False,
        True,
    ]
    (workers,) = cluster["workerGroupSpecs"]
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert spec["shutdownAfterJobFinishes"]


def test_the_image_is_built_from_what_is_here_and_pinned() -> None:
    lines = (INFRA / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert {"constraints.txt", "pyproject.toml", "manifests", "pipelines", "archiver"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert f"ARG TORCH_VERSION={PINS['torch']}" in lines
    text = "\n".join(lines)
    assert dict(re.findall(r'"(\w+)(?:\[\w+\])?==([\d.]+)"', text)) == {"ray": PINS["ray"]}
    assert f"-t {IMAGE} " in text
    assert all("-c constraints.txt" in line for line in lines if "pip install" in line)
    users = [line for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] != "USER root"


def test_the_lifecycle_moves_parts_and_nothing_that_opening_reads() -> None:
    rules = json.loads((INFRA / "s3-lifecycle.json").read_text())
    moving = [rule for rule in rules["Rules"] if "Transitions" in rule]
    prefixes = [rule["Filter"]["And"]["Prefix"] for rule in moving]
    assert any(PART.startswith(prefix) for prefix in prefixes)
    assert not any(path.startswith(prefix) for path in HOT for prefix in prefixes)
    assert not any("Expiration" in rule for rule in rules["Rules"])
    for rule in moving:
        # The others need a restore request before each read.
        assert {move["StorageClass"] for move in rule["Transitions"]} == {"GLACIER_IR"}
        assert rule["Filter"]["And"]["ObjectSizeGreaterThan"] >= 128 * 1024
    with moto_server() as server:
        bucket, client = server.bucket(), server.client()
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
        assert len(client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]) == len(rules["Rules"])
        client.close()


ACTIONS = {  # operation of the S3 API -> the right that it needs
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "list_objects_v2": "s3:ListBucket",
    "delete_object": "s3:DeleteObject",
}
SOURCE, ARCHIVE = "arn:aws:s3:::SOURCE-BUCKET", "arn:aws:s3:::ARCHIVE-BUCKET"


def allowed(action: str, resource: str, prefix: str = "") -> bool:
    """Whether the policy, for an archive at the prefix, allows it: some Allow matches and no Deny does."""
    effects = set()
    policy = re.sub(r"(images/|\.archiver-doctor-)", rf"{prefix}\1", (INFRA / "iam-policy.json").read_text())
    for statement in json.loads(policy)["Statement"]:
        assert statement.keys() == {
            "Sid",
            "Effect",
            "Action",
            "Resource",
        }  # nothing that this does not evaluate
        actions, resources = _listed(statement["Action"]), _listed(statement["Resource"])
        if any(fnmatchcase(action, a) for a in actions) and any(fnmatchcase(resource, r) for r in resources):
            effects.add(statement["Effect"])
    return effects == {"Allow"}


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def used_actions() -> set[str]:
    """The rights that our S3 store needs, read from its source."""
    operations = re.findall(r'call_s3\(\s*"(\w+)"', Path(s3_store.__file__).read_text())
    assert len(set(operations)) == len(ACTIONS)
    return {ACTIONS[operation] for operation in operations}


@pytest.mark.parametrize("prefix", ["", "photos/"])
def test_the_policy_allows_all_that_the_store_does_to_an_archive(prefix: str) -> None:
    doctor = ".archiver-doctor-0123456789abcdef/whole"
    for action in used_actions():
        paths = [""] if action == "s3:ListBucket" else [f"/{prefix}{PART}", f"/{prefix}{doctor}"]
        if action in ("s3:GetObject", "s3:PutObject"):
            paths += [f"/{prefix}{path}" for path in HOT]
        for path in paths:
            assert allowed(action, ARCHIVE + path, prefix), (action, path)
    log = f"{ARCHIVE}/{prefix}images/_delta_log/00000000000000000001.json"
    assert not allowed("s3:DeleteObject", log, prefix)
    assert not any(allowed("s3:DeleteObject", f"{ARCHIVE}/{prefix}{path}", prefix) for path in HOT)


WRITES = [
    "AbortMultipartUpload",
    "BypassGovernanceRetention",
    "DeleteBucket",
    "DeleteBucketPolicy",
    "DeleteObject",
    "DeleteObjectTagging",
    "DeleteObjectVersion",
    "PutBucketPolicy",
    "PutLifecycleConfiguration",
    "PutObject",
    "PutObjectAcl",
    "PutObjectLegalHold",
    "PutObjectRetention",
    "PutObjectTagging",
    "ReplicateDelete",
    "ReplicateObject",
    "RestoreObject",
]


def test_the_policy_reads_the_source_and_changes_nothing_there() -> None:
    assert allowed("s3:ListBucket", SOURCE)
    assert allowed("s3:GetObject", f"{SOURCE}/any/image.jpg")
    for action in WRITES:
        assert not allowed(f"s3:{action}", SOURCE), action
        assert not allowed(f"s3:{action}", f"{SOURCE}/any/image.jpg"), action
    denied = next(
        s
        for s in json.loads((INFRA / "iam-policy.json").read_text())["Statement"]
        if s["Sid"] == "NeverTheSource"
    )
    for action in WRITES:  # also where another policy of the role allows it
        assert any(fnmatchcase(f"s3:{action}", pattern) for pattern in denied["Action"]), action


@pytest.mark.parametrize("name", ["infra/s3/ceph_up.sh", "infra/s3/ceph_down.sh", ".ci/run"])
def test_shell_scripts_parse_and_stop_at_errors(name: str) -> None:
    subprocess.run(["bash", "-n", ROOT / name], check=True)
    assert "set -euo pipefail" in (ROOT / name).read_text()
    assert (ROOT / name).stat().st_mode & 0o111


def test_what_the_readme_lists_is_there() -> None:
    listed = re.findall(
        r"`((?:s3/)?[\w-]+\.(?:sh|yaml|json))`|`(Dockerfile)`", (INFRA / "README.md").read_text()
    )
    names = {a or b for a, b in listed}
    assert len(names) >= 7
    assert [name for name in names if not (INFRA / name).exists()] == []
