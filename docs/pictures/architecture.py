"""Draw docs/architecture.png: the flow of rxrx_fast, one box a room. Run it from the repository's root."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, FAINT, FLOW, SIDE, USER = "#1c2733", "#5b6b7b", "#dbeafe", "#e7f5e9", "#fdeacf"
WIDTH, HEIGHT = 1.72, 1.0
# Name, what it does, x, y, colour.
BOXES = {
    "catalog": ("which sites,\nwhich files", 0, 2.0, FLOW),
    "order": ("which sample\ncomes when", 2.2, 2.0, FLOW),
    "stores": ("bytes of\na site", 4.4, 2.0, FLOW),
    "decode": ("bytes to stacks;\nDALI carries", 6.6, 2.0, FLOW),
    "devices": ("one kernel pass,\nCPU or GPU", 8.8, 2.0, FLOW),
    "deliver": ("producer, queue,\nfaults, state", 11.0, 2.0, FLOW),
    "stats": ("histograms,\ncenter and scale", 5.5, 0.2, SIDE),
    "augment": ("policy, sampled\nparameters, views", 8.8, 0.2, SIDE),
    "kernels": ("PNG, inflate,\naugment, CUDA", 7.7, 3.8, SIDE),
    "Dataset": ("what a\nsample is", 0, 0.2, USER),
    "DataLoader": ("arguments in,\nbatches out", 11.0, 0.2, USER),
    "your model": ("(B, C, H, W)\ntensors", 13.2, 2.0, USER),
}
ARROWS = [
    ("catalog", "order"),
    ("order", "stores"),
    ("stores", "decode"),
    ("decode", "devices"),
    ("devices", "deliver"),
    ("deliver", "your model"),
    ("stats", "augment"),
    ("augment", "devices"),
    ("kernels", "devices"),
    ("DataLoader", "deliver"),
    ("catalog", "stats"),
    ("Dataset", "catalog"),
    ("kernels", "decode"),
]


def edge(box, towards):
    """Find the point on a box's border that faces another box, in data units."""
    (x, y), (tx, ty) = (BOXES[name][1:3] for name in (box, towards))
    if y == ty:
        return (x + WIDTH / 2 if tx > x else x - WIDTH / 2, y)
    return (x + 0.35 * (tx - x) / max(abs(tx - x), 1e-9) * (tx != x), y + HEIGHT / 2 if ty > y else y - HEIGHT / 2)


def main() -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(15.2, 5.0), dpi=110)
    for name, (text, x, y, color) in BOXES.items():
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        axes.add_patch(
            FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.1", fc=color, ec=INK, lw=1.1)
        )
        axes.text(x, y + 0.23, name, ha="center", va="center", fontsize=12.5, weight="bold", color=INK)
        axes.text(x, y - 0.19, text, ha="center", va="center", fontsize=9.5, color=FAINT, linespacing=1.25)
    for start, end in ARROWS:
        axes.add_patch(
            FancyArrowPatch(
                edge(start, end),
                edge(end, start),
                arrowstyle="-|>",
                mutation_scale=13,
                lw=1.2,
                color=INK,
                shrinkA=2,
                shrinkB=2,
            )
        )
    note = (
        "Pixels flow from left to right. Small tables (statistics, sampled parameters)\njoin them at the kernel pass."
    )
    axes.text(-0.85, 3.8, note, ha="left", va="center", fontsize=10, color=FAINT)
    axes.set(xlim=(-1.1, 14.3), ylim=(-0.5, 4.5))
    axes.set_axis_off()
    figure.savefig(Path(__file__).resolve().parents[1] / "architecture.png", bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
