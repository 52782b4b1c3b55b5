# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the documentation site, for Sphinx. scripts/build-docs.sh builds it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

project = "zonestack"
html_title = "zonestack"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["reference/collection/environment_variables.rst"]

# Links to headings as code hosts make them: lower case, with - for each space.
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Everything comes from the site itself, so that it works from a folder and without internet access.
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
# Examples of files and terminals that are no whole documents of their language.
suppress_warnings = ["misc.highlighting_failure"]

SECTION = re.compile(r"^## (?P<caption>.+)\n\n(?P<list>(?:^- .*\n(?:^  .*\n)*)+)", re.MULTILINE)
PAGE = re.compile(r"^- \[[^\]]+\]\((?P<page>[\w/-]+)\.(?:md|rst)\)", re.MULTILINE)


def add_contents(_app: Any, docname: str, source: list[str]) -> None:
    """Give the start page the site's contents: the pages of its lists, which a code host shows as they are."""
    if docname != "index":
        return
    listed: set[str] = set()
    for section in SECTION.finditer(source[0]):
        pages = [page for page in PAGE.findall(section["list"]) if page not in listed]
        listed.update(pages)
        if section["caption"] == "Reference":
            pages.append("Modules, plugins and roles <reference/collection/index>")
        source[0] += "\n```{toctree}\n:hidden:\n:caption: " + section["caption"] + "\n\n" + "\n".join(pages) + "\n```\n"


TITLE = re.compile(r"^zonestack\.openstack\.(?P<name>\w+ \w+) -- (?P<text>.+)\n(?P<line>\++)$", re.MULTILINE)
LOCAL_CONTENTS = re.compile(r"^\.\. contents::\n(?:   .*\n)+", re.MULTILINE)


def shorten(_app: Any, docname: str, source: list[str]) -> None:
    """Give generated pages titles that fit the navigation, and leave the list of their headings to the theme."""
    if docname.startswith("reference/collection/"):
        source[0] = LOCAL_CONTENTS.sub("", TITLE.sub(r"\g<name>\n\g<line>\n\n\g<text>.", source[0]))


ANSIBLE = "https://docs.ansible.com/ansible/latest"
LABELS = {
    "common_return_values": "reference_appendices/common_return_values.html",
    "action_plugins": "plugins/action.html",
    "ansible_collections.ansible.builtin.ssh_connection": "collections/ansible/builtin/ssh_connection.html",
}
"""What generated pages refer to in Ansible's own documentation. Its index of labels is on the internet, these are not."""


def lead_to_ansible(_app: Any, _env: Any, node: Any, content: Any) -> Any:
    """The link for a label of Ansible's own documentation; None, and so a warning, for any other label."""
    page = LABELS.get(node["reftarget"])
    if page is None:
        return None
    return nodes.reference("", "", content, internal=False, refuri=f"{ANSIBLE}/{page}")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("source-read", shorten)
    app.connect("missing-reference", lead_to_ansible)
