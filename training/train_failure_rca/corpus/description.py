"""A pod's description: what ``kubectl describe pod`` prints around its state and its events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.train_failure_rca.corpus.slots import Slots


@dataclass(frozen=True)
class Description:
    """The parts of ``kubectl describe pod`` around a pod's state and its events."""

    head: tuple[str, ...]
    between: tuple[str, ...]
    events: tuple[str, ...]


def describe_pod(generator: np.random.Generator, slots: Slots, *, chinese: bool) -> Description:
    """What stands before a pod's state, between state and events, and over the events."""
    head = (
        "Name:             {pod}",
        "Namespace:        {ns}",
        "Priority:         {0|100|1000}",
        "Node:             {host}/{ip}",
        "Start Time:       {time}",
        "Labels:           app={user}",
        "Status:           {Running|Failed|Pending}",
        "IP:               {ip2}",
        "Containers:",
        "  trainer:",
        "    Container ID:  containerd://{sha}{sha}",
        "    Image:         {image}",
        "    Command:",
        "      bash",
    )
    between = (
        "    Ready:          {True|False}",
        "    Restart Count:  {0-9}",
        "    Limits:",
        "      cpu:             {small}",
        "      memory:          {small}Gi",
        "      nvidia.com/gpu:  8",
        "    Mounts:",
        "      /data from data (rw)",
        "Conditions:",
        "  Type              Status",
        "  Initialized       True",
        "  Ready             {True|False}",
        "Volumes:",
        "  dshm:",
        "    Type:       EmptyDir (a temporary directory that shares a pod's lifetime)",
        "    Medium:     Memory",
        "QoS Class:                   {Burstable|Guaranteed|BestEffort}",
        "Tolerations:                 node.kubernetes.io/not-ready:NoExecute op=Exists for 300s",
    )
    events = (
        ("事件：",)
        if chinese
        else (
            "Events:",
            "  Type     Reason     Age   From               Message",
            "  ----     ------     ----  ----               -------",
        )
    )
    # Nobody pastes the whole of it every time.
    cut = int(generator.integers(len(head))) if generator.random() < 0.4 else 0
    return Description(
        tuple(slots.fill(text) for text in head[cut:]),
        tuple(slots.fill(t) for t in between if generator.random() < 0.8),
        events,
    )
