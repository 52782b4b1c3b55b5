# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection plugin against a real container, locally and through a real SSH daemon.

Needs root and LXC. The container shares this machine's /usr read-only, so that making it costs nothing; its init only reaps.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import typing as t
import uuid

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import action_loader, connection_loader
from ansible.template import Templar

import ansible_collections.zonestack.openstack as openstack

pytestmark = [
    pytest.mark.lxc,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("lxc-attach"), reason="needs root and LXC"),
]

PLUGIN = "zonestack.openstack.lxc"
Options = dict[str, t.Any]


def until(condition: t.Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until ``condition`` holds; fail with ``what`` when it does not within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def running_zone() -> t.Iterator[str]:
    """Make and start an unprivileged container with a root file system of its own on top of this machine's /usr."""
    name = f"conn-{uuid.uuid4().hex[:8]}"
    home = pathlib.Path("/var/lib/lxc") / name
    root = home / "rootfs"
    for folder in ("etc", "proc", "sys", "dev", "usr", "run", "tmp", "root", "var/tmp"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        if (pathlib.Path("/") / link).is_symlink():
            (root / link).symlink_to(f"usr/{link}")
    for file in ("passwd", "group", "nsswitch.conf", "pam.d", "login.defs", "security", "environment", "alternatives"):
        source = pathlib.Path("/etc") / file
        if source.is_dir():
            shutil.copytree(source, root / "etc" / file, symlinks=True)
        elif source.exists():
            shutil.copy(source, root / "etc" / file)
    # su and runuser ask PAM; the machine's own stack may name modules that make no sense here.
    for service in ("su", "su-l", "runuser", "runuser-l", "other"):
        (root / "etc/pam.d").mkdir(exist_ok=True)
        (root / "etc/pam.d" / service).write_text(
            "auth sufficient pam_rootok.so\naccount sufficient pam_permit.so\nsession sufficient pam_permit.so\n"
        )
    (root / "etc/init").write_text("#!/bin/sh\nsleep infinity &\nwait\n")
    (root / "etc/init").chmod(0o755)
    subprocess.run(["chown", "-hR", "100000:100000", str(root)], check=True)
    os.chmod(root / "tmp", 0o1777)
    os.chown(home, 100000, 100000)
    (home / "config").write_text(
        f"""lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.uts.name = {name}
lxc.rootfs.path = dir:{root}
lxc.idmap = u 0 100000 65536
lxc.idmap = g 0 100000 65536
lxc.apparmor.profile = unconfined
lxc.net.0.type = empty
lxc.mount.entry = /usr usr none bind,ro 0 0
lxc.init.cmd = /etc/init
lxc.signal.halt = SIGKILL
"""
    )
    try:
        subprocess.run(["lxc-start", "-n", name, "-l", "ERROR", "-o", str(home / "log")], check=True)
        subprocess.run(["lxc-wait", "-n", name, "-s", "RUNNING", "-t", "20"], check=True)
        yield name
    finally:
        subprocess.run(["lxc-stop", "-k", "-n", name], check=False)
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def zone() -> t.Iterator[str]:
    with running_zone() as name:
        yield name


@pytest.fixture(scope="module")
def ssh_host(sshd: t.Any) -> t.Iterator[Options]:
    """The options that reach this machine by SSH."""
    control = tempfile.mkdtemp(prefix="zs-")  # short, because a socket's path has at most 107 characters
    yield {
        "zone_transport": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": sshd.port,
        "ansible_user": getpass.getuser(),
        "ansible_ssh_private_key_file": str(sshd.folder / "client"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={sshd.folder}/known_hosts",
        "ansible_control_path_dir": control,
    }
    shutil.rmtree(control)


class _Plain:
    """What Ansible hands to a plugin to resolve templates; the variables of these tests hold none."""

    def template(self, value: t.Any) -> t.Any:
        return value


def connect(zone: str, **variables: t.Any) -> t.Any:
    """Make the plugin as Ansible's task executor does."""
    connection = connection_loader.get(PLUGIN, PlayContext(), task_uuid="0", ansible_playbook_pid="0")
    names = {"inventory_hostname": zone, "zone_transport": "local", **variables}
    connection.set_options(var_options=connection._resolve_option_variables(names, _Plain()), task_keys={"timeout": 60})
    return connection


@pytest.fixture(params=["local", "ssh"])
def connection(request: pytest.FixtureRequest, zone: str) -> t.Iterator[t.Any]:
    options: Options = request.getfixturevalue("ssh_host") if request.param == "ssh" else {}
    made = connect(zone, **options)
    yield made
    made.reset()


def pids(zone: str, word: str) -> list[int]:
    """Processes on this machine, inside the zone's process namespace, whose command line contains ``word``."""
    init = int(subprocess.run(["lxc-info", "-n", zone, "-pH"], capture_output=True, check=True).stdout)
    namespace = os.readlink(f"/proc/{init}/ns/pid")
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/pid") == namespace and word in (entry / "cmdline").read_bytes().decode():
                found.append(int(entry.name))
        except OSError:  # gone, or not ours to look at
            continue
    return found


@pytest.mark.parametrize("code", [0, 1, 126, 127, 137, 254, 255])
def test_exec_command_exit_code_is_exact(connection: t.Any, code: int) -> None:
    assert connection.exec_command(f"exit {code}") == (code, b"", b"")


def test_exec_command_killed_is_128_plus_signal(connection: t.Any) -> None:
    assert connection.exec_command("kill -9 $$")[0] == 137
    assert connection.exec_command("kill -15 $$")[0] == 143


def test_exec_command_keeps_quoting(connection: t.Any) -> None:
    words = [
        "'",
        '"',
        "$HOME",
        "`id`",
        "$(id)",
        "a  b",
        "new\nline",
        "tab\t",
        "*",
        "~",
        "\\",
        "!",
        "ä€𝄞",
        "",
        "-n",
        "; exit 3",
        "#",
    ]
    rc, out, err = connection.exec_command("printf '<%s>' " + shlex.join(words))
    assert (rc, out.decode(), err) == (0, "".join(f"<{word}>" for word in words), b"")


def test_exec_command_separates_streams_and_keeps_them_whole(connection: t.Any) -> None:
    rc, out, err = connection.exec_command("printf 'a\\n\\n'; printf 'b\\r\\n\\000' >&2")
    assert (rc, out, err) == (0, b"a\n\n", b"b\r\n\0")


def test_exec_command_answers_while_it_reads(connection: t.Any) -> None:
    data = os.urandom(8 * 1024 * 1024)
    rc, out, err = connection.exec_command("cat", in_data=data)
    assert (rc, err) == (0, b"")
    assert out == data


def test_exec_command_need_not_read_its_input(connection: t.Any) -> None:
    rc, out, _err = connection.exec_command("echo done", in_data=bytes(1024 * 1024))
    assert (rc, out) == (0, b"done\n")


def test_exec_command_without_input_reads_nothing(connection: t.Any) -> None:
    assert connection.exec_command("cat; echo end") == (0, b"end\n", b"")


def test_exec_command_environment_is_the_same_everywhere(connection: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CONTROLLER", "1")
    old = os.umask(0o077)
    try:
        rc, out, _err = connection.exec_command("env; umask; pwd; id -u; hostname")
    finally:
        os.umask(old)
    lines = out.decode().splitlines()
    assert rc == 0
    assert lines[-4:] == ["0022", "/root", "0", connection.get_option("zone_name")]
    names = {line.split("=")[0] for line in lines[:-4]}
    assert names - {"PWD", "OLDPWD", "_", "SHLVL"} == {"PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "container"}
    assert "LANG=C.UTF-8" in lines


def test_exec_command_past_its_limit_is_killed_in_the_zone(connection: t.Any, zone: str) -> None:
    connection.set_option("zone_command_timeout", 1)
    rc, out, err = connection.exec_command("echo begun; sleep 4711 & sleep 4711")
    assert rc == 124 and out in (b"begun\n", b"")  # a busy machine may not come as far
    assert b"killed after 1 s, the limit set by zone_command_timeout" in err
    assert not pids(zone, "4711")


def test_exec_command_past_its_limit_deaf_to_sigterm_is_killed(connection: t.Any, zone: str) -> None:
    connection.set_option("zone_command_timeout", 1)
    rc, _out, _err = connection.exec_command("trap '' TERM; while :; do sleep 4712; done")
    assert rc == 124
    assert not pids(zone, "4712")


def test_exec_command_leaves_a_daemon_alone(connection: t.Any, zone: str) -> None:
    rc, out, _err = connection.exec_command("setsid sleep 4713 >/dev/null 2>&1 </dev/null & echo $!")
    assert rc == 0
    assert pids(zone, "4713")
    assert connection.exec_command("kill " + out.decode())[0] == 0


@pytest.mark.parametrize("transport", ["local", "ssh"])
def test_killed_controller_leaves_no_orphan(transport: str, zone: str, request: pytest.FixtureRequest) -> None:
    variables: Options = request.getfixturevalue("ssh_host") if transport == "ssh" else {}
    child = os.fork()
    if child == 0:
        try:
            connect(zone, **variables).exec_command("runuser -u nobody -- sh -c 'sleep 4714; :' ; :")
        finally:
            os._exit(1)
    until(lambda: bool(pids(zone, "sleep\x004714")), "the command runs")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: not pids(zone, "4714"), "the command has gone with its client")


def test_put_and_fetch_binary_round_trip(connection: t.Any, zone: str, tmp_path: pathlib.Path) -> None:
    for size in (0, 1, 1024 * 1024, 20 * 1024 * 1024 + 1):
        source, back = tmp_path / "source", tmp_path / "back"
        source.write_bytes(os.urandom(size))
        name = f"/tmp/a 'b' $c {size}"
        connection.put_file(str(source), name)
        rc, out, _err = connection.exec_command(f"sha256sum < '/tmp/a '\"'b'\"' $c {size}'; ls /tmp | grep -c part")
        assert out.decode().split()[0] == hashlib.sha256(source.read_bytes()).hexdigest()
        assert out.decode().split()[-1] == "0"
        connection.fetch_file(name, str(back))
        assert back.read_bytes() == source.read_bytes()


def test_put_file_resolves_links_inside_the_zone(connection: t.Any, tmp_path: pathlib.Path) -> None:
    probe = tmp_path / "probe"
    probe.write_text("inside")
    connection.exec_command(f"mkdir -p {tmp_path}/in; ln -sfn {tmp_path}/in /tmp/link")
    connection.put_file(str(probe), "/tmp/link/probe")
    assert connection.exec_command(f"cat {tmp_path}/in/probe")[1] == b"inside"
    assert not (tmp_path / "in").exists()


def test_put_file_errors_name_path_and_zone(connection: t.Any, zone: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(AnsibleError, match=f"cannot write /nowhere/x in zone {zone}: .*nowhere"):
        connection.put_file(str(tmp_path / "x"), "/nowhere/x")
    with pytest.raises(AnsibleError, match="cannot write /tmp in zone .*is a directory"):
        connection.put_file(str(tmp_path / "x"), "/tmp")
    with pytest.raises(AnsibleFileNotFound):
        connection.put_file(str(tmp_path / "missing"), "/tmp/x")


def test_fetch_file_error_names_path_and_zone(connection: t.Any, zone: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(AnsibleError, match=f"cannot read /tmp/missing in zone {zone}: .*missing"):
        connection.fetch_file("/tmp/missing", str(tmp_path / "x"))


def test_missing_zone_is_unreachable_and_says_what_to_look_at(connection: t.Any) -> None:
    connection.set_option("zone_name", "conn-nonesuch")
    with pytest.raises(
        AnsibleConnectionFailure, match="(?s)conn-nonesuch .*Failed to get init pid.*`lxc-info -n conn-nonesuch`"
    ):
        connection.exec_command("true")


@pytest.mark.skipif(not shutil.which("sudo"), reason="needs sudo")
def test_host_become_goes_through_sudo(connection: t.Any) -> None:
    connection.set_option("zone_host_become", True)
    data = os.urandom(300_000)
    assert connection.exec_command("cat; exit 7", in_data=data) == (7, data, b"")


def test_zone_name_that_is_an_option_is_refused(connection: t.Any) -> None:
    connection.set_option("zone_name", "--help")
    with pytest.raises(AnsibleError, match="zone_name: '--help' is not a valid zone name"):
        connection.exec_command("true")


def test_zone_stopped_under_a_command_is_unreachable() -> None:
    with running_zone() as doomed:
        stopper = threading.Thread(
            target=lambda: (
                until(lambda: bool(pids(doomed, "4715")), "the command runs"),
                subprocess.run(["lxc-stop", "-k", "-n", doomed], check=True),
            )
        )
        stopper.start()
        with pytest.raises(AnsibleConnectionFailure, match=f"{doomed} on this machine did not finish the command"):
            connect(doomed).exec_command("sleep 4715")
        stopper.join()
        with pytest.raises(AnsibleConnectionFailure, match="Failed to get init pid"):
            connect(doomed).exec_command("true")


def test_unreachable_ssh_host(zone: str) -> None:
    broken = connect(zone, zone_transport="ssh", ansible_host="127.0.0.1", ansible_port=1)
    with pytest.raises(AnsibleConnectionFailure, match="Connection refused"):
        broken.exec_command("true")


# Through Ansible itself


def play(tmp_path: pathlib.Path, zone: str, variables: Options, tasks: str, hosts: str | None = None) -> None:
    """Run ``tasks`` with ansible-playbook: on the zone, or on ``hosts`` beside it (``other`` is this machine)."""
    names = {
        "ansible_connection": PLUGIN,
        "zone_transport": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        **variables,
    }
    here = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": {zone: names, "other": here}}}))
    (tmp_path / "empty.cfg").touch()
    (tmp_path / "play.yml").write_text(
        f"- hosts: {hosts or zone}\n  gather_facts: false\n  tasks:\n" + textwrap.indent(textwrap.dedent(tasks), "    ")
    )
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(tmp_path / "empty.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(pathlib.Path(openstack.__path__[0]).parents[2]),
    }
    done = subprocess.run(
        [pathlib.Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "inventory.json", tmp_path / "play.yml"],
        capture_output=True, text=True, env=environment, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


TASKS = """
- name: Become another user
  ansible.builtin.command: id -un
  become: true
  become_user: nobody
  become_method: ansible.builtin.su
  become_flags: -s /bin/sh
  register: who
  failed_when: who.stdout != 'nobody'
- name: Copy a file as that user
  ansible.builtin.copy: {content: "geheim ä€", dest: /tmp/by-nobody, mode: "0600"}
  become: true
  become_user: nobody
  become_method: ansible.builtin.su
  become_flags: -s /bin/sh
- ansible.builtin.stat: {path: /tmp/by-nobody}
  register: copied
  failed_when: copied.stat.pw_name != 'nobody' or copied.stat.mode != '0600'
- ansible.builtin.fetch: {src: /tmp/by-nobody, dest: "{{ playbook_dir }}/fetched", flat: true}
- ansible.builtin.assert:
    that: lookup('ansible.builtin.file', playbook_dir ~ '/fetched') == "geheim ä€"
- name: An asynchronous task outlives the command that starts it
  ansible.builtin.command: sh -c 'sleep 1; echo late'
  async: 600
  poll: 1
  register: late
  failed_when: late.stdout != 'late'
- ansible.builtin.meta: reset_connection
- name: And elsewhere is elsewhere
  ansible.builtin.command: hostname
  delegate_to: other
  register: elsewhere
  failed_when: elsewhere.stdout == inventory_hostname
- name: A task that runs past its time is given up
  ansible.builtin.command: sleep 4716
  timeout: 2
  ignore_errors: true
  register: given_up
- ansible.builtin.assert:
    that: "'Timed out after' in given_up.msg"
"""


@pytest.mark.parametrize("transport", ["local", "ssh"])
def test_playbook(transport: str, zone: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    variables: Options = request.getfixturevalue("ssh_host") if transport == "ssh" else {}
    play(tmp_path, zone, variables, TASKS)
    until(lambda: not pids(zone, "4716"), "the command has gone with its task")


def test_playbook_delegates_to_a_zone(zone: str, tmp_path: pathlib.Path) -> None:
    tasks = f"""
    - ansible.builtin.command: hostname
      delegate_to: "{{{{ item }}}}"
      register: there
      failed_when: (there.stdout == '{zone}') != (item == '{zone}')
      loop: [other, {zone}, other]
    """
    play(tmp_path, zone, {}, tasks, hosts="other")


# What the action zone_tree asks of it; what it renders is tested without a zone.


def tree(connection: t.Any, **variables: t.Any) -> t.Any:
    """The action, ready to have the zone behind ``connection`` apply a tree."""
    loader = DataLoader()
    action = action_loader.get(
        "zonestack.openstack.zone_tree",
        task=Task(),
        connection=connection,
        play_context=PlayContext(),
        loader=loader,
        templar=Templar(loader=loader, variables=variables),
        shared_loader_obj=None,
    )
    action.vars, action.zone = variables, {"name": connection.get_option("zone_name")}
    return action


def files(**contents: str) -> dict[str, t.Any]:
    """A request for files of root; one whose name begins with ``secret`` is one."""
    entries = [
        {
            "path": f"/root/tree/{name}",
            "content": content,
            "mode": "0600",
            "owner": "root",
            "group": "root",
            "validate": [],
            "secret": name.startswith("secret"),
        }
        for name, content in contents.items()
    ]
    return {
        "check": False,
        "directories": [],
        "files": entries,
        "exclusive": ["/root/tree"],
        "daemons": [],
        "start": True,
        "restart": False,
        "wait": 5,
    }


def test_zone_tree_writes_and_then_finds_nothing_to_do(connection: t.Any) -> None:
    wanted = files(
        plain="it's \u20ac \\ \0 \"\n", secret="hunter2\n", **{f"n{index}": "x" * 50000 for index in range(10)}
    )
    first = tree(connection).apply(wanted)
    assert "failed" not in first and len(first["written"]) == 12
    assert "hunter2" not in str(first)
    assert (
        connection.exec_command("cat /root/tree/plain /root/tree/secret")[1]
        == wanted["files"][0]["content"].encode() + b"hunter2\n"
    )
    assert tree(connection).apply(wanted)["changed"] is False
    assert len(tree(connection).apply(files())["written"]) == 12
    assert connection.exec_command("ls -A /root/tree")[1] == b""


def test_zone_tree_without_systemd_says_so(connection: t.Any) -> None:
    daemon = {"unit": "a.service", "digest": "0", "reads": [], "clustered": False, "ready": {}}
    result = tree(connection).apply({**files(), "daemons": [daemon]})
    assert result["failed"] and "`systemctl show" in result["msg"]


def test_zone_tree_without_its_python_says_what_to_set(connection: t.Any, zone: str) -> None:
    result = tree(connection, ansible_python_interpreter="/opt/none/python").apply(files(secret="hunter2"))
    assert result["failed"] and result["msg"].startswith(f"zone {zone}: ")
    assert "/opt/none/python cannot be run there; set ansible_python_interpreter" in result["msg"]
    assert "hunter2" not in str(result)


def test_zone_tree_of_a_missing_zone_is_unreachable(connection: t.Any) -> None:
    connection.set_option("zone_name", "conn-nonesuch")
    with pytest.raises(AnsibleConnectionFailure, match="conn-nonesuch"):
        tree(connection).apply(files())
