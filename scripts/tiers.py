#!/usr/bin/env python3
"""Measures queries whose blocks come from Redis and from S3 beside queries from the page cache, in one run.

`make tiers` installs the servers into target/services and calls this. It builds a store of --documents made of
the passages in testdata/, starts a Redis server and SeaweedFS on this machine, exports the store to both, and
keeps three `hyperrag query` in memory: one reads the store's folder, one Redis alone, one S3 alone. They answer
the same queries in turns, for --runs rounds, every other round in the opposite order. A ratio is the median over
the queries and rounds of the ratio within a turn. It fails if any score differs.

Then come the rate of the Redis client (the example redis_speed) and a table of what a tier in memory before a
slow tier saves (the example skew), over the skew of the queries and the rate of the slow tier, for a model that
computes as long as the one here, and for one that takes 0.1 s a query.

Prints Markdown, and writes every sample to --out as JSON.
"""

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PASSAGES = ROOT / "testdata/passages.jsonl"
KEYS = {"AWS_ACCESS_KEY_ID": "hyperrag", "AWS_SECRET_ACCESS_KEY": "measured", "AWS_REGION": "us-east-1"}
QUERIES = [
    "Which passage tells what bees do in winter?",
    "Is there a passage on bread that did not rise?",
    "Name a passage about an account that is locked.",
]
# Words of a document, whose chunk then has about 230 tokens.
WORDS = 150
# Seconds that a model on a GPU takes for a query.
FAST = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
AIMS = {"redis": 1.25, "s3": 1.8}
NAMES = {"pages": "page cache", "redis": "Redis", "s3": "S3"}


def fail(message):
    sys.exit(f"error: {message}")


def say(message):
    print(message, file=sys.stderr, flush=True)


def cpu_seconds(process):
    """Processor time of a process so far (proc(5), stat)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(process):
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak(process):
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")


def processor_times():
    """Ticks stolen by other machines, and all ticks (proc(5), /proc/stat)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def free_ports(count, above):
    """Ports that follow each other and are free, as are those 10,000 higher."""
    for base in range(11_000 + os.getpid() % 500 * 10, 22_000, 10):
        try:
            for port in [base + n + up for n in range(count) for up in (0, above)]:
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    return fail("there are no free ports")


class Server:
    """A server that dies with this program."""

    def __init__(self, command, folder, name):
        self.log = folder / f"{name}.log"
        command = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        self.name, self.spent = name, 0.0

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def failed(self):
        return fail(f"{self.name} does not start; it said:\n{self.log.read_text(errors='replace')[-2000:]}")


def wait_for(server, ready, seconds=60):
    end = time.time() + seconds
    while not ready():
        if server.process.poll() is not None or time.time() > end:
            server.failed()
        time.sleep(0.2)


def start_redis(services, folder):
    port = free_ports(1, 0)
    words = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", "noeviction"]
    server = Server([services / "redis-server", *words], folder, "redis")

    def ready():
        ping = [services / "redis-cli", "-p", str(port), "PING"]
        return subprocess.run(ping, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip() == "PONG"

    wait_for(server, ready)
    return server, f"redis://127.0.0.1:{port}"


def start_s3(services, folder):
    base = free_ports(4, 10_000)
    credentials = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config = {"identities": [{"name": "a", "credentials": [credentials], "actions": actions}]}
    (folder / "s3.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "data").mkdir()
    words = ["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"]
    words += [f"-{name}.port={base + n}" for n, name in enumerate(["master", "volume", "filer", "s3"])]
    words += ["-volume.max=50", "-master.volumeSizeLimitMB=256", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    words += [f"-dir={folder / 'data'}", f"-s3.config={folder / 's3.json'}"]
    server = Server([services / "weed", *words], folder, "weed")

    def ready():
        # Makes the bucket: it is a folder of the filer.
        request = urllib.request.Request(f"http://127.0.0.1:{base + 2}/buckets/hyperrag/", method="POST")
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            if error.code != 409:
                return False
        except OSError:
            return False
        try:
            socket.create_connection(("127.0.0.1", base + 3), 1).close()
        except OSError:
            return False
        return True

    wait_for(server, ready)
    return server, "s3://hyperrag/store", f"http://127.0.0.1:{base + 3}"


class Program:
    """hyperrag with the options of this run."""

    def __init__(self, args, endpoint=None):
        self.program = args.hyperrag
        self.options = ["--model", args.model, "--device", "cpu", "--threads", str(args.threads), "--dtype", args.dtype]
        settings = {name for name in os.environ if name.startswith(("HYPERRAG_", "AWS_"))} - {"HYPERRAG_HOME"}
        self.environment = {name: value for name, value in os.environ.items() if name not in settings} | KEYS
        if endpoint:
            self.environment["AWS_ENDPOINT_URL"] = endpoint

    def run(self, *words, attempts=1):
        command = [str(word) for word in [self.program, *words]]
        for attempt in range(attempts):
            errors = None if attempt + 1 == attempts else subprocess.DEVNULL
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment)
            if done.returncode == 0:
                return done.stdout
            time.sleep(1)
        return fail(f"`{' '.join(command)}` ended with exit code {done.returncode}; what it said is above")


class Reader:
    """A `hyperrag query` that stays in memory and reads blocks from one place."""

    def __init__(self, name, program, store, tiers, depth, server=None):
        self.name, self.server, self.samples, self.spent = name, server, [], 0.0
        command = [program.program, "query", "--store", store, "--depth", depth, "-k", depth, "--json", "-"]
        command += [*(["--tiers", tiers] if tiers else []), *program.options]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=pipe, stdout=pipe, text=True, env=program.environment
        )
        self.tiers = {}

    def ask(self, query):
        """Seconds and hits."""
        before = self.cpu()
        self.process.stdin.write(query + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            fail(f"hyperrag over {NAMES[self.name]} ended with exit code {self.process.wait()}; what it said is above")
        result = json.loads(line)
        after, stats = self.cpu(), result["stats"]
        [self.tiers] = stats.get("tiers", [{}])
        if stats["blocks_recomputed"] or stats["failovers"]:
            fail(f"{NAMES[self.name]} did not give all blocks: {stats}")
        sample = {"seconds": stats["rerank_seconds"], "bytes": stats["bytes_read"], "blocks": stats["blocks_read"]}
        sample |= {"client_cpu": after[0] - before[0], "server_cpu": after[1] - before[1]}
        return sample, [(hit["id"], hit["score"]) for hit in result["hits"]]

    def cpu(self):
        return cpu_seconds(self.process), cpu_seconds(self.server.process) if self.server else 0.0

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def median(self, figure):
        return statistics.median(sample[figure] for sample in self.samples)


def texts(documents):
    """Joins the passages to texts of WORDS words, no two of which are equal."""
    lines = PASSAGES.read_text(encoding="utf-8").splitlines()
    passages = [json.loads(line)["text"].split() for line in lines]
    for number in range(documents):
        words, at = [], number
        while len(words) < WORDS:
            words += passages[at % len(passages)]
            at += 1 + number // len(passages)
        yield " ".join(words[:WORDS])


def write_corpus(path, documents):
    # The title has a word of every query, so that BM25 finds all documents.
    rows = [
        {"_id": str(number), "title": f"Passage {number:03}", "text": text}
        for number, text in enumerate(texts(documents))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(readers, runs):
    """Asks all readers in turns."""
    for reader in readers:
        reader.ask(QUERIES[0])
    for reader in readers:
        forget_peak(reader.process)
    for number in range(runs):
        for query in QUERIES:
            order = readers if number % 2 == 0 else readers[::-1]
            found = {}
            for reader in order:
                sample, found[reader.name] = reader.ask(query)
                reader.samples.append(sample)
            if any(hits != found["pages"] for hits in found.values()):
                fail(f"scores differ between the places of blocks, for `{query}`")
            times = ", ".join(f"{NAMES[reader.name]} {reader.samples[-1]['seconds']:.2f} s" for reader in readers)
            say(f"round {number + 1}: {times}")


def figures(reader, pages):
    """The figures of a reader."""
    pairs = zip(reader.samples, pages.samples, strict=True)
    return {
        "seconds": reader.median("seconds"),
        "over_page_cache": statistics.median(a["seconds"] / b["seconds"] for a, b in pairs),
        "client_cpu_seconds": reader.median("client_cpu"),
        "server_cpu_seconds": reader.median("server_cpu"),
        "peak_memory_bytes": peak_bytes(reader.process),
        "memory_over_page_cache_bytes": peak_bytes(reader.process) - peak_bytes(pages.process),
        "tiers": reader.tiers,
        "samples": reader.samples,
    }


def example(args, name, *words, environment=None):
    program = args.hyperrag.parent / "examples" / name
    done = subprocess.run([str(program), *words], stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        fail(f"{program} ended with exit code {done.returncode}; what it said is above")
    return done.stdout


def tier_table(places):
    lines = [
        "| blocks from | a query | over page cache | first layer after, longest | threads waited | "
        "processors, hyperrag + server | memory over page cache |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, place in places.items():
        tiers, mib = place["tiers"], place["memory_over_page_cache_bytes"] / 2**20
        queries = len(place["samples"]) + 1
        cells = [f"{place['seconds']:.2f} s", "1", "", "", f"{place['client_cpu_seconds']:.2f} s", ""]
        if tiers:
            cells[1] = f"{place['over_page_cache']:.2f}"
            first, longest = tiers["first_layer_seconds"], tiers["first_layer_longest_seconds"]
            cells[2] = f"{1e3 * first:.0f} ms, {1e3 * longest:.0f} ms"
            cells[3] = f"{tiers['waited_seconds'] / queries:.2f} s"
            cells[4] = f"{place['client_cpu_seconds']:.2f} + {place['server_cpu_seconds']:.2f} s"
            cells[5] = f"{mib:+.0f} MiB"
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    return lines


def skew_tables(cells):
    """What memory before a slow tier saves, a table for each time of computing."""
    rates = sorted({cell["rate"] for cell in cells})
    lines = []
    for compute in sorted({cell["compute_seconds"] for cell in cells}, reverse=True):
        of = [cell for cell in cells if cell["compute_seconds"] == compute]
        without = {rate: statistics.median(cell["seconds_without"] for cell in of if cell["rate"] == rate) for rate in rates}
        heads = [f"{rate / 1e6:.0f} MB/s: {without[rate]:.2f} s" for rate in rates]
        lines += ["", f"| {compute:.1f} s of computing: skew, share in memory | hit rate | {' | '.join(heads)} |"]
        lines.append("|---" * (2 + len(rates)) + "|")
        for skew, share in sorted({(cell["skew"], cell["share"]) for cell in of}):
            row = {cell["rate"]: cell for cell in of if (cell["skew"], cell["share"]) == (skew, share)}
            hit_rate = statistics.mean(cell["hit_rate"] for cell in row.values())
            saved = [f"{100 * (row[rate]['seconds'] / row[rate]['seconds_without'] - 1):+.0f} %" for rate in rates]
            lines.append(f"| {skew}, {100 * share:.0f} % | {hit_rate:.2f} | {' | '.join(saved)} |")
    return lines


def sentences(report):
    conditions, pages = report["conditions"], report["places"]["pages"]["samples"][0]
    lines = [
        f"{pages['blocks']} blocks of {pages['bytes'] / pages['blocks'] / 1e6:.1f} MB a query, {len(QUERIES)} queries, "
        f"medians of {conditions['runs']} rounds. {conditions['cpu']}, {conditions['threads']} threads, "
        f"{conditions['dtype']}, steal {conditions['steal_percent']:.1f} %, load {conditions['load']:.1f} at the start, "
        f"hyperrag at {conditions['commit']}. Equal scores from all places.",
        "",
        "Redis client, one server, blocks of 5.9 MB: " + "; ".join(" ".join(line.split()) for line in report["redis_speed"]) + ".",
    ]
    for name, aim in AIMS.items():
        if name in report["places"] and report["places"][name]["over_page_cache"] > aim:
            lines.append(f"{NAMES[name]} is above the aim of {aim} times the page cache.")
    return lines


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def commit():
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or "an unknown commit"


def measured_places(folder, args, servers):
    """Builds, exports and measures. Returns the figures by place."""
    store, corpus = args.store or folder / "store", folder / "corpus.jsonl"
    write_corpus(corpus, args.documents)
    program = Program(args)
    if not store.exists():
        say(f"building a store of {args.documents} documents")
        program.run("build", corpus, "--store", store, *program.options)
    readers = []
    if "redis" in args.places:
        redis, url = start_redis(args.services / "bin", folder)
        servers.append(redis)
        say("exporting to Redis")
        program.run("export", "--store", store, "--to", url)
        readers.append(("redis", program, url, redis))
    if "s3" in args.places:
        weed, url, endpoint = start_s3(args.services / "bin", folder)
        servers.append(weed)
        say("exporting to S3")
        of_s3 = Program(args, endpoint)
        # The server takes connections before it can store.
        of_s3.run("export", "--store", store, "--to", url, attempts=40)
        readers.append(("s3", of_s3, url, weed))
    pages = Reader("pages", program, store, None, args.depth)
    readers = [pages, *(Reader(name, p, store, url, args.depth, server) for name, p, url, server in readers)]
    measure(readers, args.runs)
    places = {reader.name: figures(reader, pages) for reader in readers}
    for reader in readers:
        reader.end()
    return places


def report_of(folder, args):
    start, load, at_first = processor_times(), os.getloadavg()[0], commit()
    servers = []
    try:
        places = measured_places(folder, args, servers)
        end = processor_times()
    finally:
        for server in servers:
            server.end()
    say("the Redis client alone")
    environment = os.environ | {"HYPERRAG_SERVICES": str(args.services)}
    speed = example(args, "redis_speed", environment=environment).splitlines()
    cells = []
    if args.skew_queries:
        say("memory before a slow tier")
        compute = places["pages"]["seconds"]
        lines = example(args, "skew", f"{compute:.3f},{FAST}", str(args.skew_queries)).splitlines()
        cells = [json.loads(line) for line in lines]
    return {
        "conditions": {
            "cpu": cpu_name(),
            "threads": args.threads,
            "dtype": args.dtype,
            "runs": args.runs,
            "steal_percent": 100 * (end[0] - start[0]) / max(1, end[1] - start[1]),
            "load": load,
            "commit": at_first,
            "system": platform.platform(),
        },
        "places": places,
        "redis_speed": speed,
        "skew": cells,
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=110, help="documents of the store (110)")
    parser.add_argument("--store", type=Path, help="a store that an earlier run made there; made if it is absent (a temporary one)")
    parser.add_argument("--depth", type=int, default=100, help="candidates of a query (100)")
    parser.add_argument("--runs", type=int, default=4, help="rounds of the three queries (4)")
    parser.add_argument("--places", default="redis,s3", help="redis, s3, or both with a comma")
    parser.add_argument("--skew-queries", type=int, default=16, help="queries of a cell of the table; 0 leaves it out (16)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of hyperrag (one a core)")
    parser.add_argument("--dtype", default="f32", help="type of products (f32)")
    parser.add_argument("--model", default="smollm2-135m", help="model of hyperrag, or a GGUF file")
    parser.add_argument("--hyperrag", type=Path, default=ROOT / "target/release/hyperrag", help="the program")
    parser.add_argument("--services", type=Path, default=ROOT / "target/services", help="what scripts/services.sh made")
    parser.add_argument("--out", type=Path, default=ROOT / "target/tiers.json", help="where the JSON goes")
    args = parser.parse_args()
    args.places = [place for place in args.places.split(",") if place]
    if not set(args.places) <= set(AIMS):
        parser.error("--places takes redis and s3, with a comma between them")
    if args.runs < 1 or args.threads < 1 or args.depth < 1:
        parser.error("--runs, --threads and --depth are at least 1")
    if not args.hyperrag.exists():
        parser.error(f"{args.hyperrag} is not there: run `make build`")
    if not (args.services / "bin/weed").exists():
        parser.error(f"{args.services} has no servers: run `scripts/services.sh install`")
    args.services = args.services.resolve()
    args.store = args.store and args.store.resolve()
    args.hyperrag = args.hyperrag.resolve()
    return args


def main():
    args = arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix="tiers-") as folder:
        report = report_of(Path(folder), args)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*tier_table(report["places"]), "", *sentences(report), *skew_tables(report["skew"])]))


if __name__ == "__main__":
    main()
