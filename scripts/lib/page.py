# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML pages that load nothing from anywhere: the picture of a deployment, with tables that can be searched and sorted."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from ipaddress import IPv4Address

from model import Plan, Zone

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#16213a;--soft:#536079;--edge:#d5dae4;--tint:#f3f5f9;--link:#1d63d8}
@media screen and (prefers-color-scheme:dark){:root{--ground:#0e1320;--ink:#e9edf6;--soft:#a9b4ca;--edge:#2d3850;--tint:#171f30;--link:#69a8ff}}
body{margin:0 auto;max-width:1520px;padding:0 16px 48px;background:var(--ground);color:var(--ink);font:15px/1.5 Inter,"Segoe UI","DejaVu Sans",Roboto,Arial,sans-serif}
figure{margin:0;overflow-x:auto}figure svg{display:block;max-width:100%;height:auto;margin:0 auto}
figure [data-zone]{cursor:pointer}figure [data-zone].chosen rect,figure [data-zone]:hover rect{stroke:var(--link);stroke-width:2}
h2{font-size:20px;margin:40px 0 12px}
.tools{display:flex;gap:16px;align-items:center;margin-bottom:12px;color:var(--soft)}
input{font:inherit;color:inherit;background:var(--ground);border:1px solid var(--soft);border-radius:8px;padding:6px 12px;width:min(420px,100%)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 12px;border-bottom:1px solid var(--edge);white-space:nowrap}td.wide{white-space:normal}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible,input:focus-visible{outline:2px solid var(--link);outline-offset:2px}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
thead th{position:sticky;top:0;background:var(--tint)}tbody tr:hover,tr.chosen{background:var(--tint)}
td.code,td a{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;font-size:13px}a{color:var(--link)}
@media print{.tools{display:none}body{max-width:none;padding:0}h2{break-after:avoid}tr{break-inside:avoid}thead th{position:static}}
"""

SCRIPT = """
const table=document.getElementById('zones'),body=table.tBodies[0],find=document.getElementById('find'),count=document.getElementById('count');
const look=()=>{const words=find.value.toLowerCase().split(/\\s+/);let seen=0;
  for(const row of body.rows){row.hidden=!words.every(word=>row.textContent.toLowerCase().includes(word));seen+=!row.hidden}
  count.textContent=seen+' of '+body.rows.length+' zones'};
find.addEventListener('input',look);look();
table.tHead.addEventListener('click',event=>{const head=event.target.closest('th');if(!head)return;
  const down=head.getAttribute('aria-sort')==='ascending',at=head.cellIndex,key=row=>row.cells[at].dataset.key||row.cells[at].textContent;
  for(const other of table.tHead.rows[0].cells)other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort',down?'descending':'ascending');
  body.append(...[...body.rows].sort((a,b)=>key(a).localeCompare(key(b),'en',{numeric:true})*(down?-1:1)))});
const choose=name=>{for(const one of document.querySelectorAll('.chosen'))one.classList.remove('chosen');
  for(const one of document.querySelectorAll('[data-zone="'+CSS.escape(name)+'"]'))one.classList.add('chosen')};
document.querySelector('figure').addEventListener('click',event=>{const zone=event.target.closest('[data-zone]');if(!zone)return;
  find.value='';look();choose(zone.dataset.zone);body.querySelector('.chosen').scrollIntoView({block:'center'})});
body.addEventListener('click',event=>{const row=event.target.closest('tr');if(row&&!event.target.closest('a'))choose(row.dataset.zone)});
"""


def cell(text: str, look: str = "", key: str = "") -> str:
    kind = f' class="{look}"' if look else ""
    sort = f' data-key="{escape(key)}"' if key else ""
    return f"<td{kind}{sort}>{escape(text)}</td>"


def table(name: str, heads: Iterable[str], rows: Iterable[str], sortable: bool = False) -> str:
    head = "".join(
        f'<th scope="col"><button type="button">{one}</button></th>' if sortable else f'<th scope="col">{one}</th>'
        for one in heads
    )
    lines = "\n".join(rows)
    return (
        f'<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'
    )


def zone_row(zone: Zone, plan: Plan) -> str:
    cells = [
        cell(zone.name),
        cell(zone.service if zone.component == zone.service else f"{zone.service}: {zone.component}"),
        cell(zone.host),
        cell(zone.address, "code", str(int(IPv4Address(zone.address)))),
        cell(f"{zone.memory} MiB", "", str(zone.memory)),
        cell(str(zone.vcpus)),
        cell(", ".join(f"{name}: {path}" for name, path in zone.volumes.items()), "code"),
        cell("privileged" if zone.privileged else ""),
        cell(zone.image, "code"),
    ]
    if plan.live:
        down = plan.live.down(zone.name)
        said = plan.live.servers.get(zone.name)
        state = plan.live.states.get(zone.name, "missing")
        cells.insert(1, cell(state))
        cells.insert(2, cell(", ".join(down) if down else "UP" if said else ""))
    return f'<tr data-zone="{escape(zone.name)}">{"".join(cells)}</tr>'


def page(plan: Plan, svg: str) -> str:
    """The page. ``svg`` is the picture of the same plan."""
    heads = ["Zone", "Service", "Host", "Address", "Memory", "vCPUs", "Data volumes", "Privileged", "Image"]
    if plan.live:
        heads[1:1] = ["State", "HAProxy"]
    ends = [
        f"<tr>{cell(one.name)}{cell(str(one.port), 'code')}{cell(one.kind)}{cell('everybody' if one.public else 'zones')}"
        f"<td>{f'<a href={chr(34)}{escape(one.url)}{chr(34)}>{escape(one.url)}</a>' if one.url else ''}</td></tr>"
        for one in plan.front_ends
    ]
    networks = [
        f"<tr>{cell(one.name)}{cell('provider' if one.provider else 'zones')}{cell(one.cidr, 'code')}{cell(one.bridge, 'code')}"
        f"{cell(str(one.mtu))}{cell(', '.join(one.facts), 'wide')}</tr>"
        for one in plan.networks
    ]
    return document(
        f"{plan.deployment}: {plan.summary()}",
        f"""<figure>
{svg}</figure>
<main>
<h2>Zones</h2>
<div class="tools"><input id="find" type="search" placeholder="Search: a name, a service, an address ..." aria-label="Search zones"><span id="count" role="status"></span></div>
{table("zones", heads, (zone_row(zone, plan) for zone in plan.zones), True)}
<h2>Endpoints</h2>
{table("endpoints", ["Front end", "Port", "Kind", "For", "URL in the catalog"], ends)}
<h2>Networks</h2>
{table("networks", ["Network", "Kind", "Range", "Bridge", "MTU", "Facts"], networks)}
</main>
<script>{SCRIPT}</script>""",
    )


def document(title: str, body: str, style: str = "") -> str:
    """A whole page around ``body``; it may load nothing from anywhere.

    :param style: CSS after that of all pages.
    """
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>{STYLE}{style}</style></head><body>
{body}
</body></html>
"""
