"""The AWS of the boot test: its APIs in front of moto, and the metadata service of an instance.

    cloud.py metadata STATE     serves 169.254.169.254 in an instance's network namespace; STATE is a JSON file
                                that the test may replace: {"instance", "role", "key", "target-state"}

The APIs (`Apis`) judge each request by the policies of deploy/aws, and play the autoscaling service, whose
lifecycle hooks moto lacks. Everything else goes to moto.
"""

import http.client
import json
import re
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REGION = "eu-central-1"
ACCOUNT = "123456789012"
PARAMETERS = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
ADMIN = "AKIAADMIN"


def instance_arn(instance):
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}"


class Apis:
    """What the APIs know and have seen."""

    def __init__(self, address, moto, policies):
        self.lock = threading.Lock()
        self.moto = moto
        self.policies = policies
        # Access key -> (role, instance id)
        self.instances = {ADMIN: ("admin", "")}
        # Group -> instances in Pending:Wait
        self.waiting = {}
        self.completed = []
        self.denied = []
        self.metrics = []
        self.tags = {}
        # What was written, as the test may look at it: parameter -> value
        self.written = {}
        self.secure = set()
        self.server = ThreadingHTTPServer(address, handler_of(self))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def needs(self, service, operation, body, path):
        """The rights that a request needs: pairs of action and resource."""
        if service == "s3":
            return [("s3:GetObject", f"arn:aws:s3:::{path.split('?')[0].strip('/')}")]
        if service == "autoscaling":
            group = body.get("AutoScalingGroupName")
            resource = "*"
            if operation == "CompleteLifecycleAction":
                resource = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:1:autoScalingGroupName/{group}"
            return [(f"autoscaling:{operation}", resource)]
        if service == "monitoring":
            return [("cloudwatch:PutMetricData", "*")]
        needs = [(f"ssm:{operation}", PARAMETERS + body["Name"])]
        if operation == "PutParameter":
            if body.get("Tags"):
                needs.append(("ssm:AddTagsToResource", PARAMETERS + body["Name"]))
            if body["Type"] == "SecureString":
                needs += [("kms:Encrypt", body["KeyId"]), ("kms:GenerateDataKey", body["KeyId"])]
        if operation == "GetParameter" and body.get("WithDecryption") and body["Name"] in self.secure:
            needs.append(("kms:Decrypt", KEY))
        return needs

    def judge(self, key, service, operation, body, path):
        role, instance = self.instances[key]
        if role == "admin":
            return None
        context = {
            "ec2:SourceInstanceARN": instance_arn(instance),
            "kms:ViaService": f"ssm.{REGION}.amazonaws.com",
            "cloudwatch:namespace": "lizmon",
        }
        if service == "ssm":
            context["kms:EncryptionContext:PARAMETER_ARN"] = PARAMETERS + body["Name"]
            for tag in self.tags.get(body["Name"], []):
                context[f"aws:ResourceTag/{tag['Key']}"] = tag["Value"]
        for action, resource in self.needs(service, operation, body, path):
            if not self.policies.allows(role, action, resource, context):
                return f"{role} {instance} may not {action} {resource}"
        return None

    def autoscaling(self, operation, body):
        if operation == "CompleteLifecycleAction":
            hook, instance = body["LifecycleHookName"], body["InstanceId"]
            self.completed.append((hook, instance, body["LifecycleActionResult"]))
            for instances in self.waiting.values():
                instances.discard(instance)
            return "<CompleteLifecycleActionResult/>"
        groups = [body[name] for name in sorted(body) if name.startswith("AutoScalingGroupNames.member.")]
        texts = [
            f"<member><AutoScalingGroupName>{group}</AutoScalingGroupName><Instances>"
            + "".join(member_of(instance) for instance in sorted(self.waiting.get(group, ())))
            + "</Instances></member>"
            for group in groups
        ]
        return (
            f"<DescribeAutoScalingGroupsResult><AutoScalingGroups>{''.join(texts)}</AutoScalingGroups>"
            "</DescribeAutoScalingGroupsResult>"
        )


def member_of(instance):
    return (
        f"<member><InstanceId>{instance}</InstanceId><LifecycleState>Pending:Wait</LifecycleState>"
        "<AvailabilityZone>a</AvailabilityZone><HealthStatus>Healthy</HealthStatus>"
        "<ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>"
    )


def handler_of(apis):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body, headers=()):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def read_body(self):
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def do(self):
            raw = self.read_body()
            found = re.search(r"Credential=(\w+)/\d+/[\w-]+/(\w+)/", self.headers.get("Authorization", ""))
            if not found or found.group(1) not in apis.instances:
                return self.answer(403, b"who are you?")
            key, service = found.groups()
            operation, body = self.headers.get("X-Amz-Target", "").split(".")[-1], {}
            if service == "ssm":
                body = json.loads(raw)
            elif service in ("autoscaling", "monitoring"):
                body = dict(urllib.parse.parse_qsl(raw.decode(errors="replace")))
                operation = body.get("Action", operation)
            with apis.lock:
                denied = apis.judge(key, service, operation, body, self.path)
                if denied:
                    apis.denied.append(denied)
                    return self.deny(service, denied)
                if service == "autoscaling":
                    text = f"<{operation}Response>{apis.autoscaling(operation, body)}</{operation}Response>"
                    return self.answer(200, text.encode(), [("Content-Type", "text/xml")])
                if service == "monitoring":
                    apis.metrics.append((apis.instances[key], raw))
                    return self.answer(200, *empty_answer(self.headers))
            return self.forward(service, operation, raw, body)

        def deny(self, service, why):
            if service == "ssm":
                text = json.dumps({"__type": "AccessDeniedException", "message": why})
                return self.answer(400, text.encode(), [("Content-Type", "application/x-amz-json-1.1")])
            text = f"<Response><Errors><Error><Code>AccessDenied</Code><Message>{why}</Message></Error></Errors></Response>"
            return self.answer(403, text.encode())

        def forward(self, service, operation, raw, body):
            moto = http.client.HTTPConnection(*apis.moto, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name != "Transfer-Encoding"}
            headers["Content-Length"] = str(len(raw))
            moto.request(self.command, self.path, raw, headers)
            response = moto.getresponse()
            content = response.read()
            if service == "ssm" and operation == "PutParameter" and response.status == 200:
                with apis.lock:
                    apis.tags[body["Name"]] = body.get("Tags", [])
                    apis.written[body["Name"]] = body["Value"]
                    if body["Type"] == "SecureString":
                        apis.secure.add(body["Name"])
            kept = [
                pair for pair in response.getheaders()
                if pair[0].lower() not in ("content-length", "transfer-encoding", "connection")
            ]
            if self.command == "HEAD":
                self.send_response(response.status)
                for name, value in [*kept, ("Content-Length", response.getheader("Content-Length", "0"))]:
                    self.send_header(name, value)
                self.end_headers()
            else:
                self.answer(response.status, content, kept)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

        def log_message(self, *arguments):
            pass

    return Handler


def empty_answer(headers):
    if "cbor" in headers.get("smithy-protocol", ""):
        return b"\xbf\xff", [("smithy-protocol", "rpc-v2-cbor"), ("Content-Type", "application/cbor")]
    if "json" in headers.get("Content-Type", ""):
        return b"{}", [("Content-Type", "application/x-amz-json-1.0")]
    return b"<PutMetricDataResponse/>", [("Content-Type", "text/xml")]


def metadata(state_file):
    """Version 2 alone: without a token nothing is said, as `http_tokens = "required"` has it."""
    tokens = {"metadata-token"}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, text=""):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            wanted = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self.answer(*((200, "metadata-token") if wanted else (400, "")))

        def do_GET(self):
            if self.headers.get("X-aws-ec2-metadata-token") not in tokens:
                return self.answer(401)
            with open(state_file) as file:
                state = json.load(file)
            credentials = {
                "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": state["key"], "SecretAccessKey": "secret",
                "Token": "session", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
            }
            answers = {
                "instance-id": state["instance"],
                "placement/region": REGION,
                "autoscaling/target-lifecycle-state": state.get("target-state", "InService"),
                "iam/security-credentials/": state["role"],
                f"iam/security-credentials/{state['role']}": json.dumps(credentials),
            }
            text = answers.get(self.path.removeprefix("/latest/meta-data/"))
            return self.answer(404) if text is None else self.answer(200, text)

        def log_message(self, *arguments):
            pass

    ThreadingHTTPServer(("169.254.169.254", 80), Handler).serve_forever()


if __name__ == "__main__":
    metadata(sys.argv[2])
