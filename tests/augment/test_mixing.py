"""CutMix and MixUp: pixels and labels keep the same shares, pairs are the same for any number of ranks."""

import dataclasses

import numpy as np
import pytest
import torch
from rxrx_kernels.augment import mix

import rxrx_fast as rx
from rxrx_fast.augment.mixing import Mixed, mixed_pairs, soft_labels

SITES = np.arange(20_000)


def batches(dataset, **arguments):
    return list(rx.DataLoader(dataset, batch_size=8, device="cpu", num_threads=2, **arguments))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_and_labels_are_mixed_alike(rxrx_root, stats, dtype, kind, channels_last):
    """Each pair holds the two samples in the shares that its soft labels say; the rest of the batch is untouched."""
    policy = rx.Policy(**{kind: 1.0})
    plain = batches(rx.Dataset(rxrx_root, stats=stats, dtype=dtype))
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy, dtype=dtype)
    mixed = batches(dataset, channels_last=channels_last)
    changed = 0
    for (images, labels, _), (before, hard, meta) in zip(mixed, plain):
        pairs = mixed_pairs(policy, 0, 0, meta["site_index"].numpy())
        assert labels.dtype == torch.float32
        assert labels.shape == (len(hard), dataset.classes)
        np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
        for i, how in enumerate(pairs):
            a, b, kept = before[2 * i].float(), before[2 * i + 1].float(), how.kept(dataset.size)
            if kind == "mixup":
                expected = torch.stack([kept * a + (1 - kept) * b, kept * b + (1 - kept) * a]).to(images.dtype).float()
            else:
                y0, y1, x0, x1 = mix.rectangle(how.share, how.place, dataset.size)
                expected = torch.stack([a, b])
                expected[:, :, y0:y1, x0:x1] = expected[:, :, y0:y1, x0:x1].flip(0)
                assert kept == pytest.approx(1 - (y1 - y0) * (x1 - x0) / (64 * 64))
            torch.testing.assert_close(
                images[2 * i : 2 * i + 2].float(), expected, rtol=1e-2 if dtype != "float32" else 1e-6, atol=1e-6
            )
            for sample, own, other in (
                (2 * i, hard[2 * i], hard[2 * i + 1]),
                (2 * i + 1, hard[2 * i + 1], hard[2 * i]),
            ):
                soft = torch.zeros(dataset.classes)
                soft[own] += kept
                soft[other] += 1 - kept
                torch.testing.assert_close(labels[sample], soft)
            changed += kept < 1
    assert changed > 10


def test_shares_follow_the_beta_distribution():
    """Alpha 1 is uniform, alpha 0.2 mostly at the ends; a pair is left alone as often as `mix` says."""
    uniform = rx.Policy(mixup=1.0).draw_pairs(0, 0, SITES, 0)
    np.testing.assert_allclose(np.histogram(uniform.share, 4, (0, 1))[0] / len(SITES), 0.25, atol=0.015)
    ends = rx.Policy(cutmix=0.2).draw_pairs(0, 0, SITES, 0).share
    assert ((ends < 0.1) | (ends > 0.9)).mean() > 0.55
    assert abs(ends.mean() - 0.5) < 0.01
    both = rx.Policy(cutmix=1.0, mixup=1.0, mix=0.25).draw_pairs(0, 0, SITES, 0)
    assert abs((both.share == 1).mean() - 0.75) < 0.02
    assert abs(both.cut.mean() - 0.5) < 0.02


def test_pairs_are_those_of_any_number_of_ranks(rxrx_root, stats):
    """Two ranks with batches of 4 deliver what one rank with batches of 8 does, to the bit."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment="rcic-first-place")
    whole = batches(dataset, shuffle=True, seed=3)
    halves = [
        list(rx.DataLoader(dataset, 4, True, seed=3, rank=r, world_size=2, device="cpu", num_threads=1)) for r in (0, 1)
    ]
    assert whole
    for (images, labels, _), first, second in zip(whole, *halves, strict=True):
        assert torch.equal(images, torch.cat([first[0], second[0]]))
        assert torch.equal(labels, torch.cat([first[1], second[1]]))


def test_all_views_share_their_labels(rxrx_root, stats):
    """Views are mixed with the same shares; a policy that mixes cannot stand beside one that does not."""
    policy = rx.Policy(mixup=1.0)
    (first, second), labels, _ = batches(rx.Dataset(rxrx_root, stats=stats, augment=policy, views=2))[0]
    assert torch.equal(first, second)
    assert labels.dtype == torch.float32
    with pytest.raises(rx.UsageError, match="either all views"):
        rx.Dataset(rxrx_root, stats=stats, views=["none", policy])


def test_single_samples_and_raw_pixels_are_not_mixed(rxrx_root, stats):
    """A sample by itself has no partner, which is said; grey values keep their hard labels."""
    policy = rx.Policy(cutmix=1.0)
    with pytest.raises(rx.UsageError, match=r"rx\.DataLoader"):
        rx.Dataset(rxrx_root, stats=stats, augment=policy)[0]
    raw = rx.Dataset(rxrx_root, augment=policy, dtype="uint8")
    assert raw[0][0].dtype == torch.uint8
    assert batches(raw)[0][1].dtype == torch.int64


def test_unlabelled_samples_have_no_share():
    """Their part of a soft label is missing, so the row sums to less than 1."""
    soft = soft_labels(np.array([2, -1, 0]), 3, [Mixed(0.75, False, (0, 0))], (8, 8))
    np.testing.assert_allclose(soft, [[0, 0, 0.75], [0, 0, 0.25], [1, 0, 0]])


def test_rectangles_stay_inside():
    """Whatever the share and the middle; a share of 1 cuts nothing, of 0 about the middle everything."""
    rng = np.random.default_rng(0)
    for share, y, x in rng.random((200, 3)):
        y0, y1, x0, x1 = mix.rectangle(share, (y, x), (48, 80))
        assert 0 <= y0 <= y1 <= 48
        assert 0 <= x0 <= x1 <= 80
        assert (y1 - y0) * (x1 - x0) <= (1 - share) * 48 * 80
    assert mix.rectangle(1.0, (0.5, 0.5), (48, 80))[0] == mix.rectangle(1.0, (0.5, 0.5), (48, 80))[1]
    assert mix.rectangle(0.0, (0.5, 0.5), (48, 80)) == (0, 48, 0, 80)


def test_pairs_that_do_not_fit_are_refused():
    """Shapes, kinds and rectangles are checked before compiled code runs."""
    a, b = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 5), np.float32)
    with pytest.raises(ValueError, match="pair"):
        mix.exchange(a, b, (0, 1, 0, 1))
    with pytest.raises(ValueError, match="box"):
        mix.exchange(a, a.copy(), (0, 5, 0, 1))
    with pytest.raises(ValueError, match="pair"):
        mix.blend(a.astype(np.float16), a.astype(np.float16), 0.5)


def test_presets_without_mixing_keep_their_labels(rxrx_root, stats):
    """Only a policy that mixes makes soft labels."""
    policy = dataclasses.replace(rx.Policy.of("rcic-first-place"), cutmix=0.0)
    assert batches(rx.Dataset(rxrx_root, stats=stats, augment=policy))[0][1].dtype == torch.int64
