#!/usr/bin/env python3
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Use the dashboard of a deployment as a person would: a real browser, with the deployment's CA in its certificate store.

Logs in over https, looks at pages, opens an instance's console, logs out; anything that the browser or a server calls an
error on the way fails it. Debian's Chromium is driven, so that no browser is downloaded. The password comes on standard
input. The browser may run in the network namespace of the deployment's host, where its address is reached without a route:

    tests/browser/dashboard.py https://10.77.0.5/ --ca ca.crt --namespace PID --instance web --pictures out
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

LIMIT = 30_000
"""Milliseconds in which a page must show what it should; TCG and two cores are slow."""

HARMLESS = re.compile(r"(?i)favicon|autocomplete|VideoFrame was garbage collected")
"""Console messages of type error that are no fault of the deployment. noVNC tries whether the browser decodes H.264, and leaves the
frame of that trial to the browser, which complains when it happens to find it."""


class Visit:
    """One visit to the dashboard: what went wrong on it, and a picture of each step."""

    def __init__(self, browser: Browser, url: str, pictures: Path) -> None:
        self.url, self.pictures = url.rstrip("/"), pictures
        self.wrong: list[str] = []
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(LIMIT)
        context.on("page", self.watch)
        self.page = context.new_page()

    def watch(self, page: Page) -> None:
        """Note what the page's scripts and the servers behind it call an error."""
        page.on("console", lambda message: self.note(message.type == "error", f"console: {message.text}"))
        page.on("pageerror", lambda error: self.note(True, f"script: {error}"))
        page.on(
            "response",
            lambda answer: self.note(answer.status >= 500, f"HTTP {answer.status}: {answer.url.split('?')[0]}"),
        )

    def note(self, bad: bool, text: str) -> None:
        if bad and not HARMLESS.search(text):
            self.wrong.append(text)

    def done(self, step: str, page: Page | None = None) -> None:
        """End a step: its picture, and nothing wrong so far."""
        (page or self.page).screenshot(path=self.pictures / f"{step}.png")
        assert not self.wrong, f"{step}: {'; '.join(self.wrong)}"
        print(f"{step}: ok")

    def open(self, path: str, heading: str | re.Pattern[str]) -> None:
        """Go to a page by its address, and see its heading."""
        try:
            self.page.goto(f"{self.url}{path}")
        except Error as error:
            if "ERR_NETWORK_CHANGED" not in str(error):  # an interface of the host came or went, as a zone's do with it
                raise
            self.page.goto(f"{self.url}{path}")
        expect(self.page.locator(".page-header h1, .page-header h3").first).to_contain_text(heading)
        expect(self.page.locator(".alert-danger")).to_have_count(0)

    def log_in(self, user: str, password: str) -> None:
        self.page.goto(f"{self.url}/identity/")
        expect(self.page).to_have_url(re.compile("/auth/login/"))
        self.page.fill("#id_username", user)
        self.page.fill("#id_password", password)
        self.page.click("#loginBtn")
        expect(self.page.locator(".user-name")).to_contain_text(user)
        cookies = {cookie["name"]: cookie for cookie in self.page.context.cookies()}
        assert cookies["sessionid"]["secure"] and cookies["sessionid"]["httpOnly"], (
            "the session's cookie is not protected"
        )
        self.done("login")

    def see_identity(self) -> None:
        """The admin project, which Keystone alone knows."""
        self.open("/identity/", "Projects")
        expect(self.page.get_by_role("link", name="admin", exact=True)).to_be_visible()
        self.done("projects")

    def see_instance(self, name: str) -> None:
        """The running instance in the list, its console on a page of its own, and its network in the topology."""
        self.open("/project/", "Overview")
        self.done("overview")
        self.open("/project/instances/", "Instances")
        row = self.page.locator("tr", has=self.page.get_by_role("link", name=name, exact=True))
        expect(row).to_contain_text("Active")
        expect(row).to_contain_text("Running")
        self.done("instances")
        row.get_by_role("link", name=name, exact=True).click()
        self.page.locator(".nav-tabs a", has_text="Console").click()
        frame = self.page.frame_locator("#console_embed")
        # noVNC marks its page when the connection to the instance's screen stands, and draws the screen on a canvas.
        expect(frame.locator("html.noVNC_connected")).to_have_count(1)
        expect(frame.locator("canvas")).to_be_visible()
        self.done("console")
        self.open("/project/network_topology/", "Network Topology")
        expect(self.page.locator("svg").get_by_text("Instance", exact=True).first).to_be_visible()
        self.done("topology")

    def log_out(self) -> None:
        self.page.click(".user-menu .dropdown-toggle, .user-name")
        self.page.locator("a[href*='/auth/logout/']:visible, button:has-text('Sign Out'):visible").first.click()
        expect(self.page).to_have_url(re.compile("/auth/login/"))
        self.page.goto(f"{self.url}/identity/")
        expect(self.page).to_have_url(re.compile("/auth/login/"))
        self.done("logout")


def trust(home: Path, ca: Path) -> None:
    """Put the deployment's CA where Chromium looks for what its user trusts."""
    store = home / ".pki/nssdb"
    store.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "deployment", "-i", str(ca)]):
        subprocess.run(["certutil", "-d", f"sql:{store}", *arguments], check=True, timeout=30)


def program(home: Path, chromium: str, namespace: int) -> str:
    """The browser's program: itself, or one that enters the network namespace of a process first."""
    if not namespace:
        return chromium
    wrapper = home / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec nsenter --net --target {namespace} {chromium} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Use the dashboard with a real browser. The password comes on standard input."
    )
    parser.add_argument("url")
    parser.add_argument("--ca", type=Path, required=True, help="the CA that the dashboard's certificate must come from")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--instance", help="a running instance to look at, in the user's project")
    parser.add_argument(
        "--then", metavar="COMMAND", help="shell command to run once logged in, such as one that stops a server"
    )
    parser.add_argument("--pictures", type=Path, required=True, help="folder for a picture of each step")
    parser.add_argument(
        "--namespace", metavar="PID", type=int, default=0, help="process whose network the browser is to use"
    )
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    password = sys.stdin.readline().rstrip("\n")
    options.pictures.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=LIMIT)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        trust(Path(home), options.ca)
        # Root needs --no-sandbox; only the deployment under test is visited.
        path = program(Path(home), options.chromium, options.namespace)
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], env={"HOME": home, "PATH": os.environ["PATH"]}
        )
        visit = Visit(browser, options.url, options.pictures)
        try:
            visit.log_in(options.user, password)
            if options.then:
                subprocess.run(options.then, shell=True, check=True, timeout=60)
            visit.see_identity()
            if options.instance:
                visit.see_instance(options.instance)
            visit.log_out()
        except BaseException:
            visit.page.screenshot(path=options.pictures / "failed.png")
            print("\n".join(visit.wrong), file=sys.stderr)
            raise
        finally:
            browser.close()


if __name__ == "__main__":
    main()
