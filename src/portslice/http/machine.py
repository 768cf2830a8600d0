"""/system/stats.json: how the machine is, in libprocess' process `system`."""

import os

from aiohttp import web

from portslice.http.answers import json_response


def routes() -> list[web.RouteDef]:
    """The endpoint. The `.json` is part of its name."""
    return [web.route("*", "/system/stats.json", stats)]


async def stats(request: web.Request) -> web.Response:
    """Load averages, CPUs, and bytes of memory."""
    return json_response(request, readings())


def readings() -> dict[str, float]:
    """By Mesos' names. Free memory is what nobody uses for anything, as sysinfo(2) has it."""
    load = os.getloadavg()
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "avg_load_1min": load[0],
        "avg_load_5min": load[1],
        "avg_load_15min": load[2],
        "cpus_total": os.cpu_count() or 1,
        "mem_free_bytes": os.sysconf("SC_AVPHYS_PAGES") * page,
        "mem_total_bytes": os.sysconf("SC_PHYS_PAGES") * page,
    }
