"""The agent of test_real_clients: it runs every client, against what is allowed and what is not. HOSTS is put before it."""

JAVA = """
import java.net.*; import java.net.http.*;
public class Get {
    public static void main(String[] a) throws Exception {
        var client = HttpClient.newBuilder().proxy(ProxySelector.of(new InetSocketAddress("127.0.0.1", 3128))).build();
        var answer = client.send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode());
        System.exit(answer.statusCode() == 200 ? 0 : 1);
    }
}
"""
import json, os, subprocess

PIP, NPM, APT, GIT = HOSTS
(
    os.makedirs("/workspace/artifacts"),
    os.makedirs("/workspace/apt/lists/partial"),
    os.makedirs("/workspace/apt/cache/archives/partial"),
)
open("/workspace/Get.java", "w").write(JAVA)
open("/workspace/sources.list", "w").write(f"deb [trusted=yes] https://{APT}/ ./\n")
open("/workspace/apt.conf", "w").write("""
Dir::Etc::SourceList "/workspace/sources.list"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::Parts "/dev/null";
Dir::State::Lists "/workspace/apt/lists"; Dir::Cache "/workspace/apt/cache"; Dir::Log "/workspace/apt"; Debug::NoLocking "1";
Acquire::Languages "none"; APT::Sandbox::User ""; Acquire::Retries "0";
""")


def run(name, command, cwd="/workspace", **env):
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=100, cwd=cwd, env={**os.environ, **env}
    )
    answers[name] = [done.returncode, (done.stdout + done.stderr)[-1500:]]


answers = {}
run(
    "pip",
    f"python3 -m pip install --no-cache-dir --disable-pip-version-check --target /workspace/site --index-url https://{PIP}/simple/ parcel"
    " && PYTHONPATH=/workspace/site python3 -c 'import parcel; assert parcel.ANSWER == 42'",
)
run(
    "npm",
    f"mkdir js && cd js && npm init -y >/dev/null && npm install --registry https://{NPM}/ --no-audit --no-fund parcel"
    " && node -e \"process.exit(require('parcel') === 42 ? 0 : 1)\"",
)
run("git", f"git clone https://{GIT}/parcel.git cloned && grep -x 42 cloned/answer")
run(
    "apt",
    "apt-get update && apt-get download parcel && dpkg -x parcel_1.0_all.deb out && grep -x 42 out/usr/share/parcel/answer",
    APT_CONFIG="/workspace/apt.conf",
)
run("curl", f"curl -fsS https://{PIP}/simple/parcel/ -o page && grep parcel page")
run("python", f"python3 -c \"import urllib.request as r; print(r.urlopen('https://{PIP}/simple/parcel/').read())\"")
run("node", f"node -e \"fetch('https://{NPM}/parcel').then(r => process.exit(r.status === 200 ? 0 : 1))\"")
run(
    "go",
    f"rclone --config /dev/null copyurl https://{NPM}/parcel got --retries 1 --low-level-retries 1 && grep dist-tags got",
)
run("java", f"java -Xmx128m Get.java https://{PIP}/simple/parcel/")
for name, command in {
    "pip": f"python3 -m pip install --disable-pip-version-check --retries 0 --target /workspace/no --index-url https://pip.denied.example.net/simple/ parcel",
    "npm": f"mkdir no && cd no && npm install --registry https://npm.denied.example.net/ --fetch-retries 0 parcel",
    "git": f"git clone https://git.denied.example.net/parcel.git never",
    "curl": f"curl -sS -D /workspace/head https://curl.denied.example.net/",
    "go": f"rclone --config /dev/null copyurl https://go.denied.example.net/x no --retries 1 --low-level-retries 1",
    "java": f"java -Xmx128m Get.java https://java.denied.example.net/",
    "node": f"node -e \"fetch('https://node.denied.example.net/').catch(e => process.exit(3))\"",
}.items():
    run(f"denied {name}", command)
import http.client

for kind in ("pip", "npm", "git", "apt"):
    door = http.client.HTTPConnection("127.0.0.1", 3128)
    door.request("CONNECT", f"{kind}.denied.example.net:443", headers={"Host": f"{kind}.denied.example.net:443"})
    said = door.getresponse()
    answers[f"shape {kind}"] = [said.status, said.read().decode()]
json.dump(answers, open("/workspace/artifacts/answers.json", "w"))
