//! The verdicts as tables: links, manifests, blobs, places, time.

use super::{
    BlobFacts, LinkFacts, MAX_STEP, ManifestFacts, PlaceFacts, Policy, Verdict, advance, choose_place, is_garbage,
    review_link, review_manifest,
};
use crate::store::Place;

const POLICY: Policy = Policy { grace: 10, lease: 20, quarantine: 5, untagged: Some(100) };

#[test]
fn links() {
    let check = |referred, used_at, now, want| {
        assert_eq!(review_link(&LinkFacts { referred, used_at }, &POLICY, now), want, "{referred} {used_at} {now}");
    };
    check(true, 0, 1000, Verdict::Keep);
    check(false, 100, 119, Verdict::Later(120));
    check(false, 100, 120, Verdict::Remove);
    check(false, i64::MAX, 120, Verdict::Later(i64::MAX));
}

#[test]
fn manifests() {
    let idle =
        ManifestFacts { deleted_at: None, tagged: false, listed: false, subject: None, untagged_at: 1000, used_at: 0 };
    let check = |facts: ManifestFacts, now, want| assert_eq!(review_manifest(&facts, &POLICY, now), want, "{facts:?}");
    check(idle, 1099, Verdict::Later(1100));
    check(idle, 1100, Verdict::Remove);
    check(ManifestFacts { used_at: 1050, ..idle }, 1100, Verdict::Later(1150));
    check(ManifestFacts { tagged: true, ..idle }, 9999, Verdict::Keep);
    check(ManifestFacts { listed: true, ..idle }, 9999, Verdict::Keep);
    check(ManifestFacts { subject: Some(true), ..idle }, 9999, Verdict::Keep);
    // Its subject may be on its way for as long as promises live, however short the grace period is.
    check(ManifestFacts { subject: Some(false), ..idle }, 1019, Verdict::Later(1020));
    check(ManifestFacts { subject: Some(false), ..idle }, 1020, Verdict::Remove);
    // Deleted by hand: nothing that reaches it keeps it longer than it can be brought back.
    check(ManifestFacts { deleted_at: Some(50), tagged: true, ..idle }, 59, Verdict::Later(60));
    check(ManifestFacts { deleted_at: Some(50), listed: true, ..idle }, 60, Verdict::Remove);
    let forever = Policy { untagged: None, ..POLICY };
    assert_eq!(review_manifest(&idle, &forever, 9999), Verdict::Keep);
    assert_eq!(review_manifest(&ManifestFacts { subject: Some(false), ..idle }, &forever, 9999), Verdict::Remove);
}

#[test]
fn blobs() {
    for (held, referred, want) in [(false, false, true), (true, false, false), (false, true, false)] {
        assert_eq!(is_garbage(&BlobFacts { held, referred }), want, "{held} {referred}");
    }
}

#[test]
fn places() {
    use Place::{Canonical, Inline, Unique};
    for (row, canonical_retired, want) in [
        (None, false, Canonical),
        (None, true, Unique(9)),
        (Some((Inline, true)), false, Canonical),
        (Some((Inline, false)), false, Canonical),
        (Some((Inline, true)), true, Unique(9)),
        (Some((Canonical, true)), false, Canonical),
        (Some((Unique(3), true)), true, Unique(3)),
        (Some((Canonical, false)), false, Unique(9)),
        (Some((Unique(3), false)), true, Unique(9)),
    ] {
        let facts = PlaceFacts { row, canonical_retired };
        assert_eq!(choose_place(&facts, 9), want, "{facts:?}");
    }
}

#[test]
fn time_never_goes_back_and_never_leaps() {
    for (last, wall, first, want) in [
        (None, 500, true, (500, false)),
        (Some(500), 501, false, (501, false)),
        (Some(500), 499, false, (500, true)),
        (Some(500), 499, true, (500, true)),
        (Some(500), 500 + MAX_STEP, false, (500 + MAX_STEP, false)),
        (Some(500), 501 + MAX_STEP, false, (500 + MAX_STEP, true)),
        (Some(500), 501 + MAX_STEP, true, (501 + MAX_STEP, false)),
    ] {
        assert_eq!(advance(last, wall, first), want, "{last:?} {wall} {first}");
    }
}
