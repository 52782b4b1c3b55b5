# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would write into the zones of a deployment, without any host: Ansible's own inventory, variables and templates,
and the action that a run uses, in this process. Nothing is written anywhere, so secrets stay in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deployment import DeploymentError

Tree = dict[str, Any]
"""``directories``, ``files``, ``exclusive`` and ``daemons``: see ``apply`` in plugins/module_utils/zone/tree.py."""


def find_collections() -> None:
    """Let Ansible find this collection by its name, before anything of it is imported."""
    from ansible.plugins.loader import init_plugin_loader
    from ansible.utils.collection_loader import AnsibleCollectionConfig

    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()


class Rendering:
    """The zones of one inventory.

    :param topology: the ``topology.yml``.
    :param further: what a play reads besides the inventory: ``secrets``.
    """

    def __init__(self, topology: Path, further: dict[str, Any]) -> None:
        from ansible.inventory.manager import InventoryManager
        from ansible.parsing.dataloader import DataLoader
        from ansible.vars.manager import VariableManager

        find_collections()
        self.further = further
        self.loader = DataLoader()
        self.inventory = InventoryManager(self.loader, [str(topology)])
        self.manager = VariableManager(self.loader, self.inventory)

    def variables(self, zone: str) -> dict[str, Any]:
        """What a play on the zone sees."""
        return {**self.manager.get_vars(host=self.inventory.get_host(zone)), **self.further}

    def templar(self, variables: dict[str, Any]) -> Any:
        from ansible.template import Templar

        return Templar(loader=self.loader, variables=variables)

    def tree(self, variables: dict[str, Any]) -> Tree:
        """What a run writes into the zone that has these variables."""
        from ansible.errors import AnsibleError
        from ansible.playbook.play_context import PlayContext
        from ansible.playbook.task import Task
        from ansible.plugins.loader import action_loader

        task = Task()
        task.action, task.args = "zonestack.openstack.zone_tree", {}
        action: Any = action_loader.get(
            task.action,
            task=task,
            connection=SimpleNamespace(_shell=SimpleNamespace(tmpdir="")),
            play_context=PlayContext(),
            loader=self.loader,
            templar=self.templar(variables),
            shared_loader_obj=None,
        )
        try:
            found: Tree = action.render(variables)
        except AnsibleError as why:
            raise DeploymentError(f"zone {variables['zone']['name']} cannot be rendered: {why}") from None
        return found
