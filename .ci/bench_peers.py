"""Runs Tidegate and its peers in turns and prints medians of events per CPU-second, with ratios.

Arguments: the nexmark example, the folder with the peers' programs, then queries (none: all).
A query that a peer can't run (or that fails) leaves a dash.
"""

import json
import os
import statistics
import subprocess
import sys

QUERIES = ["q0", "q1", "q2", "q3", "q5", "q7", "q8", "q12", "count"]
# Their name in the peers, where it is another one.
PEER_QUERIES = {"count": "kc"}
# Programs in the peers' folder, and what they are.
PEERS = {"bare": "bare loop", "ren": "renoir", "tim": "timely"}
# Tidegate should reach these; the bare loop is what the machine can do.
RIVALS = ["ren", "tim"]
# At parallelism 2 the bare loop is two threads that ship keys to each other: of its events per second by the clock,
# lean keyed queries should reach this part.
STATELESS = ["q0", "q1", "q2"]
PART_OF_BARE_PAIR = 0.8
TIMEOUT = 120


def output_of(command):
    """The last line of a program as JSON, or None with a word on why."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        return json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        why = f"took longer than {TIMEOUT} s"
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["no message"])[-1]
    except (OSError, ValueError, IndexError) as error:
        why = str(error)
    print(f"bench-peers: {' '.join(command)}: {why}", file=sys.stderr)
    return None


class Bench:
    def __init__(self, example, peers):
        self.example, self.peers = example, peers

    def command(self, engine, query, mode, parallelism, events):
        if engine == "tidegate":
            return [self.example, "--query", query, "--mode", mode, "--events", str(events),
                    "--parallelism", str(parallelism), "--count-only", "--json"]
        program = os.path.join(self.peers, engine)
        return [program, PEER_QUERIES.get(query, query), mode, str(parallelism), str(events)]

    def rate(self, engine, query, mode, parallelism, events):
        """Millions of events per CPU-second, and by the clock."""
        line = output_of(self.command(engine, query, mode, parallelism, events))
        if line is None:
            return None
        if engine == "tidegate":
            cpu = max(line["cpu_seconds"], 1e-9)
            return events / cpu / 1e6, line["events_per_second"] / 1e6
        return line["mev_cpu_s"], line["mev_s"]

    def events(self, engine, case, seconds):
        """How many events keep an engine busy for about so many CPU-seconds."""
        events = 500_000
        while True:
            rate = self.rate(engine, *case, events)
            if rate is None:
                return None
            busy = events / 1e6 / rate[0]
            if busy > seconds / 4 or events >= 100_000_000:
                return max(int(events * seconds / busy) // 100_000 * 100_000, 100_000)
            events *= 4


def cell(value):
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def compare(bench, case, rounds, seconds):
    """Medians by engine: (per CPU-second, by the clock), or None."""
    engines = ["tidegate", *PEERS]
    # The same events for all, since state grows with them.
    events = bench.events("tidegate", case, seconds)
    rates = {engine: [] for engine in engines}
    if events is None:
        return dict.fromkeys(engines)
    for number in range(rounds):
        order = engines if number % 2 == 0 else engines[::-1]
        for engine in order:
            rate = bench.rate(engine, *case, events)
            if rate is not None:
                rates[engine].append(rate)
    medians = {}
    for engine, runs in rates.items():
        medians[engine] = tuple(statistics.median(figures) for figures in zip(*runs)) if runs else None
    return medians


def main():
    example, peers, *wanted = sys.argv[1:]
    unknown = [query for query in wanted if query not in QUERIES]
    if unknown:
        sys.exit(f"bench-peers: unknown query {unknown[0]}; known are {', '.join(QUERIES)}")
    rounds = int(os.environ.get("PEERS_ROUNDS", "3"))
    seconds = float(os.environ.get("PEERS_SECONDS", "0.5"))
    bench = Bench(example, peers)
    print(f"\nMillions of events per CPU-second (by the clock in brackets), medians of {rounds} rounds in turns.")
    print("The last columns are Tidegate's events per CPU-second over theirs; 1 or more is the target for renoir, timely.\n")
    heads = ["tidegate", *PEERS.values()]
    line = "".join(f"{head:>17}" for head in heads) + "".join(f"{'/ ' + head:>12}" for head in PEERS.values())
    met = of = pairs_met = pairs_of = 0
    for parallelism in (1, 2):
        for mode in ("lean", "full"):
            bare_pair = mode == "lean" and parallelism == 2
            last = f"{'by the clock':>14}" if bare_pair else ""
            print(f"{f'{mode}, parallelism {parallelism}':<22}{line}{last}")
            for query in wanted or QUERIES:
                medians = compare(bench, (query, mode, parallelism), rounds, seconds)
                row = f"{query:<22}"
                for engine in ("tidegate", *PEERS):
                    median = medians[engine]
                    text = "-" if median is None else f"{cell(median[0])} ({cell(median[1])})"
                    row += f"{text:>17}"
                ours = medians["tidegate"]
                for engine in PEERS:
                    theirs = medians[engine]
                    ratio = ours[0] / theirs[0] if ours and theirs else None
                    mark = ""
                    if engine in RIVALS and theirs:
                        of += 1
                        met += ratio is not None and ratio >= 1
                        mark = "" if ratio is not None and ratio >= 1 else " !"
                    row += f"{('-' if ratio is None else f'{ratio:.2f}') + mark:>12}"
                theirs = medians["bare"]
                if bare_pair and theirs and query not in STATELESS:
                    part = ours[1] / theirs[1] if ours else 0
                    pairs_of += 1
                    pairs_met += part >= PART_OF_BARE_PAIR
                    row += f"{f'{part:.2f}' + ('' if part >= PART_OF_BARE_PAIR else ' !'):>14}"
                print(row, flush=True)
            print()
    print(f"at least as fast as renoir and timely: {met} of {of}   (! marks the others)")
    if pairs_of:
        print(f"lean keyed queries at parallelism 2, by the clock, at least {PART_OF_BARE_PAIR} of the bare loop's two "
              f"threads: {pairs_met} of {pairs_of}")


if __name__ == "__main__":
    main()
