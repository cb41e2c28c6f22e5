"""How fast it is: `python -m bench` measures every row of docs/performance.md, or those named.

Each row compares the daemon, as a process, with a ceiling that is measured in the same run: the
same load on a server that does nothing else, or the same transfer without the proxy. Everything
stays on loopback.
"""
