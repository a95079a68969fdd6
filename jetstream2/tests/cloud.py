"""A cloud for tests: the parts of Keystone, Nova, Neutron, Cinder, Glance and Swift that spool-cluster uses.

One HTTP server on loopback, with its state in memory. It contains no code that is specific to spool-cluster.
"""

import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PROJECT = "0123456789abcdef0123456789abcdef"
USER = "fedcba9876543210fedcba9876543210"
SERVICES = {
    "identity": "v3",
    "compute": "compute/v2.1",
    "network": "network",
    "block-storage": f"volume/v3/{PROJECT}",
    "image": "image",
    "object-store": f"swift/v1/AUTH_{PROJECT}",
}
# Neutron's collections, with the names of their elements.
NETWORKING = {
    "networks": "network",
    "subnets": "subnet",
    "routers": "router",
    "ports": "port",
    "security-groups": "security_group",
    "security-group-rules": "security_group_rule",
    "floatingips": "floatingip",
}


class Refused(Exception):
    """An error response."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class Cloud:
    """State of a cloud: flavors, an image, a keypair, an external network, and the created resources."""

    def __init__(self, flavors):
        self.lock = threading.RLock()
        self.flavors = {
            name: {
                "id": name,
                "name": name,
                "vcpus": vcpus,
                "ram": ram_gb * 1000,
                "disk": 20,
                "OS-FLV-EXT-DATA:ephemeral": 0,
                "swap": 0,
                "os-flavor-access:is_public": True,
                "extra_specs": {},
            }
            for name, vcpus, ram_gb in flavors
        }
        self.images = {
            "Featured-Ubuntu24": {"id": str(uuid.uuid4()), "name": "Featured-Ubuntu24", "status": "active"}
        }
        self.keypairs = {
            "mine": {
                "name": "mine",
                "fingerprint": "aa:bb",
                "public_key": "ssh-ed25519 AAAA",
                "type": "ssh",
                "user_id": USER,
            }
        }
        self.quota = {"instances": 10, "cores": 100, "ram": 512000, "volumes": 10, "gigabytes": 1000}
        self.resources = {kind: {} for kind in (*NETWORKING, "servers", "volumes", "ec2")}
        public = self.add("networks", {"name": "public", "router:external": True, "tags": []})
        self.public = public["id"]
        # Buckets by name, with properties and objects. Of other projects' buckets only the existence is
        # visible.
        self.buckets, self.foreign_buckets = {}, set()
        # Created resources in order, and the number of creations after which the cloud refuses more.
        self.created, self.refuse_after = [], None
        self.broken_servers = set()
        # Requests that the fake does not implement. A test that sends one is wrong.
        self.unimplemented = []
        self.next_address = 20

    def add(self, kind, fields):
        resource = {"id": str(uuid.uuid4()), "project_id": PROJECT, "tenant_id": PROJECT, **fields}
        self.resources[kind][resource["id"]] = resource
        return resource

    def create(self, kind, fields):
        if self.refuse_after is not None and len(self.created) >= self.refuse_after:
            raise Refused(503, "the service is unavailable")
        self.created.append((kind, fields.get("name", "")))
        return self.add(kind, fields)

    def find(self, kind, ident):
        try:
            return self.resources[kind][ident]
        except KeyError:
            raise Refused(404, f"{kind} {ident} could not be found") from None

    def names(self, kind):
        return sorted(resource.get("name", "") for resource in self.resources[kind].values())

    def leftovers(self):
        """Returns the names of the resources that were created and not deleted, by kind."""
        resources = {kind: self.names(kind) for kind in self.resources if self.resources[kind]}
        resources["networks"].remove("public")
        return {kind: names for kind, names in resources.items() if names} | (
            {"buckets": sorted(self.buckets)} if self.buckets else {}
        )

    def server(self, name):
        return next(server for server in self.resources["servers"].values() if server["name"] == name)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Buffers a whole response, because a second packet would wait for the acknowledgement of the first.
    wbufsize = 1 << 16
    cloud: Cloud

    def log_message(self, *_):
        pass

    def handle_method(self):
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.chunk, b""))
        else:
            self.body = self.rfile.read(length)
        self.path_parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.query = {key: values for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            with self.cloud.lock:
                status, answer, headers = self.answer()
        except Refused as refused:
            error = {"code": refused.status, "message": refused.message, "title": refused.message}
            status, answer, headers = (
                refused.status,
                {"error": error, "NeutronError": {"message": refused.message, "type": "", "detail": ""}},
                {},
            )
        data = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **headers,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_method

    def chunk(self):
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def json(self):
        return json.loads(self.body or b"{}")

    def answer(self):
        service, *rest = self.path_parts
        found = {
            "v3": self.identity,
            "compute": self.compute,
            "network": self.network,
            "volume": self.volume,
            "image": self.image,
            "swift": self.swift,
            "s3": self.s3,
        }.get(service)
        answer = found and found(rest)
        if answer is not None:
            return answer if isinstance(answer, tuple) else (200, answer, {})
        self.cloud.unimplemented.append(f"{self.command} {self.path}")
        raise Refused(404, f"no answer to {self.command} {self.path}")

    # Keystone: tokens with a catalog, and EC2 credentials.

    def identity(self, parts):
        base = f"http://{self.headers['Host']}"
        match self.command, parts:
            case "GET", []:
                return {
                    "version": {
                        "id": "v3.14",
                        "status": "stable",
                        "links": [{"rel": "self", "href": f"{base}/v3"}],
                    }
                }
            case "POST", ["auth", "tokens"]:
                who = self.json()["auth"]["identity"].get("application_credential", {})
                if who.get("secret") != "right":
                    raise Refused(401, "The request you have made requires authentication.")
                catalog = [
                    {
                        "type": kind,
                        "name": kind,
                        "id": kind,
                        "endpoints": [
                            {
                                "interface": "public",
                                "region": "R",
                                "region_id": "R",
                                "id": kind,
                                "url": f"{base}/{path}",
                            }
                        ],
                    }
                    for kind, path in SERVICES.items()
                ]
                token = {
                    "methods": ["application_credential"],
                    "expires_at": "2999-01-01T00:00:00.000000Z",
                    "issued_at": "2026-01-01T00:00:00.000000Z",
                    "user": {"id": USER, "name": "tester", "domain": {"id": "d", "name": "d"}},
                    "catalog": catalog,
                    "project": {"id": PROJECT, "name": "p", "domain": {"id": "d", "name": "d"}},
                    "roles": [{"id": "m", "name": "member"}],
                }
                return 201, {"token": token}, {"X-Subject-Token": "a-token"}
            case "GET", ["users", _, "credentials", "OS-EC2"]:
                return {"credentials": list(self.cloud.resources["ec2"].values()), "links": {}}
            case "POST", ["users", _, "credentials", "OS-EC2"]:
                key = {
                    "access": uuid.uuid4().hex,
                    "secret": uuid.uuid4().hex,
                    "user_id": USER,
                    "trust_id": None,
                    "links": {},
                }
                created = self.cloud.create("ec2", key)
                del self.cloud.resources["ec2"][created["id"]]
                self.cloud.resources["ec2"][key["access"]] = created | {
                    "id": key["access"],
                    "tenant_id": PROJECT,
                }
                return 201, {"credential": self.cloud.resources["ec2"][key["access"]]}, {}
            case "GET", ["users", _, "credentials", "OS-EC2", access]:
                return {"credential": self.cloud.find("ec2", access)}
            case "DELETE", ["users", _, "credentials", "OS-EC2", access]:
                self.cloud.find("ec2", access)
                del self.cloud.resources["ec2"][access]
                return 204, None, {}

    # Nova: flavors, keypairs, limits, servers.

    def compute(self, parts):
        cloud, base = self.cloud, f"http://{self.headers['Host']}/compute/v2.1"
        match self.command, parts[1:]:
            case "GET", []:
                return {
                    "version": {
                        "id": "v2.1",
                        "status": "CURRENT",
                        "version": "2.90",
                        "min_version": "2.1",
                        "links": [{"rel": "self", "href": base}],
                    }
                }
            case "GET", ["flavors", "detail"] | ["flavors"]:
                return {"flavors": list(cloud.flavors.values())}
            case "GET", ["flavors", name, *rest]:
                if name not in cloud.flavors:
                    raise Refused(404, f"Flavor {name} could not be found.")
                return {"extra_specs": {}} if rest else {"flavor": cloud.flavors[name]}
            case "GET", ["os-keypairs"]:
                return {"keypairs": [{"keypair": pair} for pair in cloud.keypairs.values()]}
            case "GET", ["os-keypairs", name]:
                if name not in cloud.keypairs:
                    raise Refused(404, f"Keypair {name} not found for user {USER}")
                return {"keypair": cloud.keypairs[name]}
            case "GET", ["limits"]:
                used = [
                    cloud.flavors[server["flavor"]["original_name"]]
                    for server in cloud.resources["servers"].values()
                ]
                return {
                    "limits": {
                        "rate": [],
                        "absolute": {
                            "maxTotalInstances": cloud.quota["instances"],
                            "totalInstancesUsed": len(used),
                            "maxTotalCores": cloud.quota["cores"],
                            "totalCoresUsed": sum(flavor["vcpus"] for flavor in used),
                            "maxTotalRAMSize": cloud.quota["ram"],
                            "totalRAMUsed": sum(flavor["ram"] for flavor in used),
                        },
                    }
                }
            case "POST", ["servers"]:
                return 202, {"server": self.boot(self.json()["server"])}, {}
            case "GET", ["servers", "detail"] | ["servers"]:
                pattern = re.compile(self.query.get("name", [""])[0])
                return {
                    "servers": [
                        server
                        for server in cloud.resources["servers"].values()
                        if pattern.search(server["name"])
                    ]
                }
            case "GET", ["servers", ident]:
                return {"server": cloud.find("servers", ident)}
            case "DELETE", ["servers", ident]:
                server = cloud.find("servers", ident)
                for disk in server["os-extended-volumes:volumes_attached"]:
                    cloud.resources["volumes"].pop(disk["id"], None)
                del cloud.resources["servers"][ident]
                return 204, None, {}

    def boot(self, asked):
        cloud = self.cloud
        network = asked["networks"][0]
        if "port" in network:
            port = cloud.find("ports", network["port"])
            address, name = (
                port["fixed_ips"][0]["ip_address"],
                cloud.find("networks", port["network_id"])["name"],
            )
            groups = port["security_groups"]
        else:
            address, name = f"10.42.0.{cloud.next_address}", cloud.find("networks", network["uuid"])["name"]
            groups = [group["name"] for group in asked["security_groups"]]
            cloud.next_address += 1
        disks = [disk for disk in asked.get("block_device_mapping_v2", []) if disk["source_type"] == "volume"]
        flavor = next(flavor for flavor in cloud.flavors.values() if flavor["id"] == asked["flavorRef"])
        broken = asked["name"] in cloud.broken_servers
        return cloud.create(
            "servers",
            {
                "name": asked["name"],
                "status": "ERROR" if broken else "ACTIVE",
                "metadata": asked.get("metadata", {}),
                "key_name": asked["key_name"],
                "image": {"id": asked["imageRef"]},
                "flavor": {**flavor, "original_name": flavor["name"]},
                "user_id": USER,
                "addresses": {name: [{"addr": address, "version": 4, "OS-EXT-IPS:type": "fixed"}]},
                "user_data": asked.get("user_data"),
                "groups": groups,
                "os-extended-volumes:volumes_attached": [{"id": disk["uuid"]} for disk in disks],
                "links": [],
                **({"fault": {"code": 500, "message": "No valid host was found."}} if broken else {}),
            },
        )

    # Neutron: one implementation for all collections.

    def network(self, parts):
        cloud = self.cloud
        base = f"http://{self.headers['Host']}/network/v2.0"
        match self.command, parts[1:]:
            case "GET", []:
                return {
                    "versions": [
                        {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": base}]}
                    ]
                }
            case "GET", ["extensions"]:
                return {"extensions": []}
            case "GET", ["extensions", name]:
                raise Refused(404, f"Extension with alias {name} does not exist")
            case "PUT", [kind, ident, "tags"]:
                cloud.find(kind, ident)["tags"] = self.json()["tags"]
                return self.json()
            case "PUT", ["routers", ident, ("add_router_interface" | "remove_router_interface") as change]:
                router, subnet = cloud.find("routers", ident), self.json()["subnet_id"]
                if change.startswith("add"):
                    router["interfaces_info"].append(
                        {"subnet_id": subnet, "ip_address": "10.42.0.1", "port_id": str(uuid.uuid4())}
                    )
                else:
                    router["interfaces_info"] = [
                        face for face in router["interfaces_info"] if face["subnet_id"] != subnet
                    ]
                return {"id": ident, "subnet_id": subnet}
            case method, [kind, *ident] if kind in NETWORKING:
                return self.networking(method, kind, *ident)

    def networking(self, method, kind, ident=None):
        cloud, one, many = self.cloud, NETWORKING[kind], kind.replace("-", "_")
        if method == "POST":
            fields = self.json()[one]
            fields.setdefault("tags", [])
            fields.setdefault("name", "")
            if kind == "routers":
                fields |= {"external_gateway_info": None, "interfaces_info": [], "status": "ACTIVE"}
            if kind == "floatingips":
                fields["floating_ip_address"] = f"149.165.0.{len(cloud.resources[kind]) + 1}"
            return 201, {one: cloud.create(kind, fields)}, {}
        if method == "PUT":
            cloud.find(kind, ident).update(self.json()[one])
            return {one: cloud.find(kind, ident)}
        if method == "DELETE":
            self.deletable(kind, cloud.find(kind, ident))
            del cloud.resources[kind][ident]
            return 204, None, {}
        if ident:
            return {one: cloud.find(kind, ident)}
        wanted = {
            key: values
            for key, values in self.query.items()
            if key not in ("limit", "marker", "fields", "sort_key")
        }
        return {
            many: [
                resource
                for resource in cloud.resources[kind].values()
                if all(matches(resource, key, values) for key, values in wanted.items())
            ]
        }

    def deletable(self, kind, resource):
        """Raises a conflict if other resources still depend on this one, as Neutron does."""
        resources = self.cloud.resources
        used = {
            "networks": [
                1 for server in resources["servers"].values() if resource["name"] in server["addresses"]
            ]
            + [1 for port in resources["ports"].values() if port["network_id"] == resource["id"]],
            "subnets": [
                1
                for router in resources["routers"].values()
                for face in router["interfaces_info"]
                if face["subnet_id"] == resource["id"]
            ],
            "routers": resource.get("interfaces_info"),
            "security-groups": [
                1
                for server in resources["servers"].values()
                if {resource["id"], resource["name"]} & set(server["groups"])
            ],
        }.get(kind)
        if used:
            raise Refused(409, f"{kind} {resource['id']} is in use")
        if kind == "security-groups":
            for rule in [
                rule
                for rule in resources["security-group-rules"].values()
                if rule["security_group_id"] == resource["id"]
            ]:
                del resources["security-group-rules"][rule["id"]]
        if kind == "networks":
            for subnet in [
                subnet for subnet in resources["subnets"].values() if subnet["network_id"] == resource["id"]
            ]:
                del resources["subnets"][subnet["id"]]

    # Cinder: volumes and limits.

    def volume(self, parts):
        cloud = self.cloud
        match self.command, parts[2:]:
            case "GET", [] if len(parts) < 2:
                return {
                    "versions": [
                        {
                            "id": "v3.0",
                            "status": "CURRENT",
                            "version": "3.70",
                            "min_version": "3.0",
                            "links": [{"rel": "self", "href": f"http://{self.headers['Host']}/volume/v3/"}],
                        }
                    ]
                }
            case "GET", ["limits"]:
                volumes = cloud.resources["volumes"].values()
                return {
                    "limits": {
                        "rate": [],
                        "absolute": {
                            "maxTotalVolumes": cloud.quota["volumes"],
                            "totalVolumesUsed": len(volumes),
                            "maxTotalVolumeGigabytes": cloud.quota["gigabytes"],
                            "totalGigabytesUsed": sum(volume["size"] for volume in volumes),
                        },
                    }
                }
            case "POST", ["volumes"]:
                asked = self.json()["volume"]
                volume = {
                    "name": asked["name"],
                    "size": asked["size"],
                    "metadata": asked.get("metadata", {}),
                    "status": "available",
                    "attachments": [],
                    "bootable": "false",
                    "volume_type": None,
                    "description": None,
                }
                return 202, {"volume": cloud.create("volumes", volume)}, {}
            case "GET", ["volumes", "detail"] | ["volumes"]:
                return {"volumes": list(cloud.resources["volumes"].values())}
            case "GET", ["volumes", ident]:
                return {"volume": cloud.find("volumes", ident)}
            case "DELETE", ["volumes", ident]:
                cloud.find("volumes", ident)
                del cloud.resources["volumes"][ident]
                return 202, None, {}

    # Glance: images by name.

    def image(self, parts):
        match self.command, parts:
            case "GET", []:
                return {
                    "versions": [
                        {
                            "id": "v2.9",
                            "status": "CURRENT",
                            "links": [{"rel": "self", "href": f"http://{self.headers['Host']}/image/v2/"}],
                        }
                    ]
                }
            case "GET", ["v2", "images"]:
                name = self.query.get("name", [None])[0]
                return {
                    "images": [image for image in self.cloud.images.values() if name in (None, image["name"])]
                }
            case "GET", ["v2", "images", ident]:
                for image in self.cloud.images.values():
                    if image["id"] == ident:
                        return image
                raise Refused(404, f"No image found with ID {ident}")

    # Swift, and the part of its S3 API that is visible without credentials.

    def swift(self, parts):
        cloud = self.cloud
        match self.command, parts[2:]:
            case "PUT", [bucket]:
                if bucket in cloud.foreign_buckets:
                    raise Refused(409, "BucketAlreadyExists")
                if bucket not in cloud.buckets:
                    cloud.create("ec2", {"name": bucket})
                    cloud.resources["ec2"].popitem()
                    cloud.created[-1] = ("buckets", bucket)
                    cloud.buckets[bucket] = {"properties": {}, "objects": {}}
                return 201, None, {}
            case _, [bucket, *_] if bucket not in cloud.buckets:
                raise Refused(404, "Not Found")
            case "POST", [bucket]:
                cloud.buckets[bucket]["properties"] |= {
                    key: value
                    for key, value in self.headers.items()
                    if key.lower().startswith("x-container-meta-")
                }
                return 204, None, {}
            case "HEAD", [bucket]:
                objects = cloud.buckets[bucket]["objects"]
                sizes = {
                    "X-Container-Object-Count": str(len(objects)),
                    "X-Container-Bytes-Used": str(sum(map(len, objects.values()))),
                }
                return 204, None, sizes | cloud.buckets[bucket]["properties"]
            case "GET", [bucket]:
                prefix, marker = self.query.get("prefix", [""])[0], self.query.get("marker", [""])[0]
                return [
                    {"name": name, "bytes": len(data), "hash": "", "content_type": "", "last_modified": ""}
                    for name, data in sorted(cloud.buckets[bucket]["objects"].items())
                    if name.startswith(prefix) and name > marker
                ]
            case "DELETE", [bucket]:
                if cloud.buckets[bucket]["objects"]:
                    raise Refused(409, "There was a conflict when trying to complete your request.")
                del cloud.buckets[bucket]
                return 204, None, {}
            case "PUT", [bucket, *key]:
                cloud.buckets[bucket]["objects"]["/".join(key)] = self.body
                return 201, None, {"Etag": "x"}
            case "DELETE", [bucket, *key]:
                del cloud.buckets[bucket]["objects"]["/".join(key)]
                return 204, None, {}

    def s3(self, parts):
        taken = parts[0] in self.cloud.buckets or parts[0] in self.cloud.foreign_buckets
        raise Refused(403 if taken else 404, "AccessDenied" if taken else "NoSuchBucket")


def matches(resource, key, values):
    if key == "tags":
        return set(values[0].split(",")) <= set(resource["tags"])
    return str(resource.get(key)) in values


class Running:
    """Serves a cloud over HTTP until it is closed."""

    def __init__(self, cloud):
        handler = type("CloudHandler", (Handler,), {"cloud": cloud})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
