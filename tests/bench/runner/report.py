"""The Markdown: facts of the machine, one table a group, the goals."""
import math
import os
import platform
import statistics
import time

from .loads import GROUPS, IDLE_CPU, all_goals, all_loads

COMPARED = {load.name: load.figures[0].key for load in all_loads()}


class Results:
    def __init__(self):
        self.records = {}    # (load name, peer name) → {round: figures}
        self.discarded = []  # (round, load, peer, why)

    def add(self, number, load, peer, record):
        self.records.setdefault((load.name, peer.name), {})[number] = record

    def discard(self, number, load, peer, why):
        self.discarded.append((number, load, peer, why))

    def values(self, load_name, peer_name, key):
        runs = self.records.get((load_name, peer_name), {})
        return [record[key] for record in runs.values() if record.get(key) is not None]

    def pairs(self, load_name, subject, other, key):
        """Round by round, where both have a good run."""
        mine = self.records.get((load_name, subject), {})
        theirs = self.records.get((load_name, other), {})
        return [(mine[n][key], theirs[n][key]) for n in sorted(mine)
                if n in theirs and mine[n].get(key) is not None and theirs[n].get(key) is not None]

    def ratios(self, load_name, subject, other, key):
        return [mine / theirs for mine, theirs in self.pairs(load_name, subject, other, key) if theirs]

    def differences(self, load_name, subject, other, key):
        return [mine - theirs for mine, theirs in self.pairs(load_name, subject, other, key)]


def number(value):
    """Three digits that count."""
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 or size == 0 else f"{value:.3f}"


def ratio(value):
    """Near 1 to a thousandth: some goals are about hundredths."""
    return f"{value:.3f}" if 0.9 <= value <= 1.1 else number(value)


def spread(values, show=number):
    if not values:
        return "–"
    middle = show(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({show(min(values))}–{show(max(values))})"


def median_interval(values):
    """The two values between which the true median lies with 95 %, whatever the distribution; None for too few. They
    are as many from each end as a coin that is thrown for each value falls on one side with 2.5 % at most."""
    values, n = sorted(values), len(values)
    tail, skipped = 0.0, -1
    while tail + math.comb(n, skipped + 1) / 2 ** n <= 0.025:
        skipped += 1
        tail += math.comb(n, skipped) / 2 ** n
    return (values[skipped], values[n - 1 - skipped]) if skipped >= 0 else None


def _cpu_model():
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "cpu model"):
                return value.strip()
    return platform.machine()


def _is_virtual():
    with open("/proc/cpuinfo") as file:
        return any(line.startswith("flags") and " hypervisor" in line for line in file)


def _memory_gib():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)


def _system():
    try:
        with open("/etc/os-release") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.split("=", 1)[1].strip().strip('"')
    except OSError:
        pass
    return platform.system()


def facts(peers, options, machine):
    """What a reader must know of the machine: a list of (what, value)."""
    virtual = ", virtual" if _is_virtual() else ""
    found = [
        ("date", time.strftime("%Y-%m-%d")),
        ("processor", f"{_cpu_model()}, {os.cpu_count()} cores{virtual}"),
        ("memory", f"{_memory_gib():.0f} GiB"),
        ("system", f"{_system()}, Linux {platform.release()}"),
        ("forwarder on core", str(machine.proxy_cpu)),
        ("load and backend on core", str(machine.load_cpu)),
        ("measured", f"{options.rounds} rounds, {options.seconds:g} s a run after {options.warm:g} s of warm-up"),
    ]
    versions = {}
    for peer in peers:
        version = peer.version()
        family = peer.name.partition("-")[0]
        if version and family not in versions:
            versions[family] = version
    found.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return found


def _table(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return lines


def _subject(load, options):
    """Whose ratio to the others is shown."""
    if load.group == "admin" and options.subject == "penstock":
        return "penstock-admin"
    if load.group == "script" and options.subject == "penstock":
        return "penstock-policy"
    return options.subject


def _group_table(loads, peers, results, options):
    figures = loads[0].figures
    rows = [["load", "forwarder", figures[0].title, f"{_subject(loads[0], options)} ÷ it",
             *(figure.title for figure in figures[1:]), "runs"]]
    for load in loads:
        for peer in peers:
            key = (load.name, peer.name)
            if key not in results.records:
                continue
            subject = _subject(load, options)
            # What does nothing has no CPU time to form a ratio with.
            compared = "" if peer.name == subject or figures[0] is IDLE_CPU else spread(
                results.ratios(load.name, subject, peer.name, load.figures[0].key), ratio)
            cells = [spread(results.values(*key, figure.key)) for figure in figures]
            rows.append([load.title, peer.title, cells[0], compared, *cells[1:],
                         str(len(results.records[key]))])
    return [*_table(rows), ""] if len(rows) > 1 else []


def _group(group, loads, peers, results, options):
    """One table; two where the group's loads have other figures (the scripted ones)."""
    lines = []
    for figures in dict.fromkeys(tuple(load.figures) for load in loads):
        alike = [load for load in loads if tuple(load.figures) == figures]
        lines += _group_table(alike, peers, results, options)
    if group == "admin":
        lines += _admin_cost(loads, results)
    return [f"### {GROUPS[group]}", "", *lines] if lines else []


def _admin_cost(loads, results):
    """What the admin costs, with how sure that is."""
    rows = [["load", "penstock-admin ÷ penstock", "95 % interval of the median", "main thread without, CPU ms/s",
             "with", "scrapes a run", "rounds"]]
    for load in loads:
        if load.figures[0] is IDLE_CPU:
            continue
        ratios = results.ratios(load.name, "penstock-admin", "penstock", load.figures[0].key)
        if not ratios:
            continue
        interval = median_interval(ratios)
        rows.append([f"{load.title}: {load.figures[0].title}", spread(ratios, ratio),
                     "–".join(ratio(end) for end in interval) if interval else "takes 6 rounds",
                     *(spread(results.values(load.name, name, "main_thread_ms_per_s"))
                       for name in ("penstock", "penstock-admin")),
                     spread(results.values(load.name, "penstock-admin", "scrapes")), str(len(ratios))])
    return [*_table(rows), ""] if len(rows) > 1 else []


def _goal_against(goal, results):
    """For each of the goal's loads, the peer with the lowest median and the median ratio to it, or difference."""
    compare = results.differences if goal.more else results.ratios
    compared = []
    names = []
    for load_name in goal.loads:
        key = COMPARED[load_name]
        medians = {name: statistics.median(values) for name in goal.against
                   if (values := results.values(load_name, name, key))}
        if not medians:
            return goal.against, []
        best = min(medians, key=medians.get)
        found = compare(load_name, goal.subject, best, key)
        if not found:
            return goal.against, []
        names.append(best)
        compared.append(statistics.median(found))
    return names, compared


def _goal_row(goal, results):
    if goal.against:
        names, measured = _goal_against(goal, results)
        unique = list(dict.fromkeys(names))
        against = ", ".join(unique) if len(goal.against) == 1 or not measured else \
            f"best of {', '.join(goal.against)} (here {', '.join(unique)})"
    else:
        values = results.values(goal.loads[0], goal.subject, goal.key)
        against, measured = "–", [statistics.median(values)] if values else []
    if not measured:
        return [goal.title, against, f"{goal.most:g}{goal.unit}", "not measured", "–"]
    met = "yes" if all(value <= goal.most for value in measured) else "no"
    return [goal.title, against, f"{goal.most:g}{goal.unit}",
            ", ".join((number if goal.unit else ratio)(value) + goal.unit for value in measured), met]


def markdown(results, loads, peers, found, options):
    lines = ["## Results", ""]
    lines += _table([["", ""], *([what, value] for what, value in found)]) + [""]
    lines += ["Median (min–max) of the rounds; the ratio is taken round by round, so it is not that of the medians.",
              ""]
    for group in GROUPS:
        lines += _group(group, [load for load in loads if load.group == group], peers, results, options)
    goals = [["load", "against", "at most", "measured", "met"]]
    measured = {load.name for load in loads}
    goals += [_goal_row(goal, results) for goal in all_goals() if set(goal.loads) & measured]
    if len(goals) > 1:
        lines += ["### Goals", "", *_table(goals), ""]
    if results.discarded:
        lines += ["### Discarded runs", ""]
        lines += [f"- round {n}, {load.title}, {peer.title}: {why}" for n, load, peer, why in results.discarded]
        lines.append("")
    return "\n".join(lines)


def raw(results, loads, peers, found):
    """For --json."""
    return {
        "facts": dict(found),
        "loads": {load.name: load.title for load in loads},
        "peers": {peer.name: peer.title for peer in peers},
        "runs": [{"load": load, "peer": peer, "round": n, **record}
                 for (load, peer), runs in results.records.items() for n, record in runs.items()],
        "discarded": [{"load": load.name, "peer": peer.name, "round": n, "why": why}
                      for n, load, peer, why in results.discarded],
    }
