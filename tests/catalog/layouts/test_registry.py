"""The registry of layouts: what is tried, in which order."""

import pickle

import pytest
from data_roots import METADATA, metadata_row, write

from rxrx_fast.catalog import Catalog
from rxrx_fast.catalog.layout import Layout, register, registered
from rxrx_fast.catalog.layouts.rxrx_ai import RxrxAi


def test_layouts_are_tried_in_a_fixed_order():
    """Layouts with evidence of their own come first, whatever the order of imports; then the fallbacks."""
    layouts = registered()
    assert {"kaggle-2019", "kaggle-2023", "rxrx.ai", "wilds"} <= {layout.name for layout in layouts}
    assert layouts == sorted(layouts, key=lambda layout: (layout.fallback, layout.name))
    assert {layout.name for layout in layouts if layout.fallback} == {"kaggle-2019", "rxrx.ai"}


def test_two_layouts_cannot_share_a_name():
    """Registering a second layout of one name raises ValueError."""
    with pytest.raises(ValueError, match="two layouts are called 'wilds'"):
        register(RxrxAi("wilds", "{well}.png"))
    assert [layout.name for layout in registered()].count("wilds") == 1


def test_a_catalogs_layout_travels_to_a_worker(tmp_path):
    """The layout of a pickled catalog is equal to the original."""
    layout = Catalog.read(write(tmp_path, {"metadata.csv": METADATA + metadata_row()})).layout
    assert layout.name == "rxrx.ai"
    assert pickle.loads(pickle.dumps(layout)) == layout


@pytest.mark.parametrize(
    ("template", "name", "parts"),
    [
        ("a/{plate}/{well}_s{site}_w{channel}.png", "B03_s2_w6.png", {"well": "B03", "site": "2", "channel": "6"}),
        ("a/{plate}/{well}_s{site}.png", "AA12_s0.png", {"well": "AA12", "site": "0"}),
        ("a/{plate}/{well}_s{site}_w{channel}.png", "B03_s02_w6.png", None),
        ("a/{plate}/{well}_s{site}_w{channel}.png", "B03_s2_w6xpng", None),
        ("a/{plate}/{well}_{channel:02d}.png", "B03_01.png", None),
    ],
)
def test_a_templates_names_are_recognised(template, name, parts):
    """The pattern follows from the template; formats are not followed, so such images are never counted as strays."""
    match = Layout("x", template).file_name.fullmatch(name)
    assert (match and match.groupdict()) == parts
