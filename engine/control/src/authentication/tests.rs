//! Logins: what the cache may and may not do, how fast a revocation counts, and that refusals look alike.

use std::num::NonZeroUsize;

use sepal_crypto::scram::{SCRAM_SHA_256, ServerExchange, Verifier};

use super::*;
use crate::{
    key_cache::KeyCache,
    tests::{Fixture, START},
};

fn refused(fixture: &Fixture, token: &str) -> sepal_types::Error {
    fixture.control.authenticate_token(token).unwrap_err().for_login("acme")
}

/// A well-formed token with the id of `token` and another secret.
fn forged(token: &Token) -> Token {
    let other = Token::generate(None);
    let secret = other.expose().split('_').nth(4).unwrap();
    let body = format!("sepal_live_all_{}_{secret}_", token.key_id());
    let mut crc = crc32fast::hash(body.as_bytes());
    let mut digits = Vec::new();
    for _ in 0..6 {
        digits.push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(crc % 62) as usize]);
        crc /= 62;
    }
    digits.reverse();
    Token::parse(&(body + std::str::from_utf8(&digits).unwrap())).unwrap()
}

#[test]
fn a_token_gives_its_principal() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant("acme");
    let (key, token) =
        fixture.control.create_key(tenant.id, Some("default"), Scopes::READ, "", Some(START + 10)).unwrap();
    for _ in 0..2 {
        let principal = fixture.control.authenticate_token(token.expose()).unwrap();
        assert_eq!((principal.tenant, &*principal.tenant_name), (tenant.id, "acme"));
        assert_eq!((principal.key_id, principal.scopes), (key.id.clone(), Scopes::READ));
        assert_eq!(principal.environment.as_deref(), Some("default"));
    }
    assert_eq!(fixture.control.key_cache_stats().hits, 1);
}

#[test]
fn all_refusals_look_alike() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant("acme");
    let (revoked_key, revoked) = fixture.key(&tenant);
    let (_, expired) =
        fixture.control.create_key(tenant.id, None, Scopes::READ, "", Some(START + 1)).unwrap();
    let (_, living) = fixture.key(&tenant);
    fixture.control.revoke_key(&revoked_key.id).unwrap();
    fixture.clock.advance(1);
    let wrong = forged(&living);
    let unknown = Token::generate(None);
    let expected = refused(&fixture, "not a token");
    assert_eq!(expected.state().code(), "28P01");
    assert_eq!(expected.message(), "password authentication failed for user \"acme\"");
    for token in [&revoked, &expired, &wrong, &unknown] {
        // The second time is answered by the cache of refusals.
        assert_eq!(refused(&fixture, token.expose()), expected);
        assert_eq!(refused(&fixture, token.expose()), expected);
    }
    assert_eq!(fixture.control.key_cache_stats().refused_hits, 4);
    assert!(fixture.control.authenticate_token(living.expose()).is_ok());
}

/// A thousand requests read the database once; the counters say so.
#[test]
fn hits_do_not_read_the_database() {
    let fixture = Fixture::new();
    let (_, token) = fixture.key(&fixture.tenant("acme"));
    for _ in 0..1000 {
        fixture.control.authenticate_token(token.expose()).unwrap();
    }
    let stats = fixture.control.key_cache_stats();
    assert_eq!((stats.hits, stats.misses, stats.evictions, stats.size), (999, 1, 0, 1));
}

/// XXH3 picks the slot, the HMAC decides: with one slot for everything, a stranger's token must not get the
/// answer that another one left there.
#[test]
fn colliding_tokens_do_not_share_an_answer() {
    let mut fixture = Fixture::new();
    let one_slot = NonZeroUsize::MIN;
    fixture.control.cache = KeyCache::with_slots(one_slot, one_slot, Box::new(|_| 0));
    let control = &fixture.control;
    let (one, two) = (fixture.tenant("one"), fixture.tenant("two"));
    let ((_, token_one), (_, token_two)) = (fixture.key(&one), fixture.key(&two));
    for _ in 0..2 {
        assert_eq!(control.authenticate_token(token_one.expose()).unwrap().tenant, one.id);
        assert!(control.authenticate_token(forged(&token_one).expose()).is_err(), "same slot, same id");
        assert!(control.authenticate_token(Token::generate(None).expose()).is_err(), "same slot, unknown id");
        assert_eq!(control.authenticate_token(token_two.expose()).unwrap().tenant, two.id);
    }
    assert_eq!(control.key_cache_stats().evictions, 3);
}

#[test]
fn ten_thousand_bad_tokens_evict_no_good_one() {
    let mut fixture = Fixture::new();
    let slots = NonZeroUsize::new(100).unwrap();
    fixture.control.cache = KeyCache::new(slots, slots);
    let (_, token) = fixture.key(&fixture.tenant("acme"));
    fixture.control.authenticate_token(token.expose()).unwrap();
    for _ in 0..10_000 {
        assert!(fixture.control.authenticate_token(Token::generate(None).expose()).is_err());
    }
    fixture.control.authenticate_token(token.expose()).unwrap();
    let stats = fixture.control.key_cache_stats();
    assert_eq!((stats.hits, stats.size, stats.refused_size), (1, 1, 100));
}

#[test]
fn entries_live_sixty_seconds_at_most() {
    let fixture = Fixture::new();
    let (_, token) = fixture.key(&fixture.tenant("acme"));
    let misses = |advance| {
        fixture.clock.advance(advance);
        fixture.control.authenticate_token(token.expose()).unwrap();
        fixture.control.key_cache_stats().misses
    };
    assert_eq!(misses(0), 1);
    assert_eq!(misses(59), 1);
    assert_eq!(misses(1), 2);
    assert_eq!(misses(-10), 3, "a clock set back does not lengthen an entry's life");
}

#[test]
fn revocation_counts_at_once() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let tenant = fixture.tenant("acme");
    let ((key, token), (_, other)) = (fixture.key(&tenant), fixture.key(&tenant));
    let principal = control.authenticate_token(token.expose()).unwrap();
    let bystander = control.authenticate_token(other.expose()).unwrap();
    let (_, by_scram) = control.scram_verifier(&key.id).unwrap();
    assert!(control.still_valid(&principal));

    control.revoke_key(&key.id).unwrap();
    assert!(!control.still_valid(&principal));
    assert!(!control.still_valid(&by_scram.unwrap()));
    assert!(control.authenticate_token(token.expose()).is_err());
    assert!(control.scram_verifier(&key.id).unwrap().1.is_none());
    assert!(control.still_valid(&bystander));
    assert_eq!(
        bystander.lease.checked_at.load(Ordering::SeqCst),
        control.current_generation(),
        "the next statement of the others costs a load again"
    );
}

#[test]
fn expiry_and_dropped_tenants_end_sessions() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let tenant = fixture.tenant("acme");
    let (_, short) = control.create_key(tenant.id, None, Scopes::READ, "", Some(START + 30)).unwrap();
    let (_, long) = fixture.key(&tenant);
    let (short_lived, long_lived) = (
        control.authenticate_token(short.expose()).unwrap(),
        control.authenticate_token(long.expose()).unwrap(),
    );
    fixture.clock.advance(29);
    assert!(control.still_valid(&short_lived));
    assert!(control.authenticate_token(short.expose()).is_ok());
    fixture.clock.advance(1);
    assert!(!control.still_valid(&short_lived));
    assert!(control.authenticate_token(short.expose()).is_err(), "the cache's 60 s end with the key");
    assert!(control.still_valid(&long_lived));
    control.drop_tenant("acme").unwrap();
    assert!(!control.still_valid(&long_lived));
}

/// `sepal keys revoke` in another process: noticed at the next poll.
#[test]
fn revocation_by_another_process() {
    let fixture = Fixture::new();
    let (key, token) = fixture.key(&fixture.tenant("acme"));
    let principal = fixture.control.authenticate_token(token.expose()).unwrap();
    assert!(!fixture.control.poll_external_changes().unwrap());
    let other = Control::open(&fixture.path(), &fixture.root, fixture.options()).unwrap();
    other.revoke_key(&key.id).unwrap();
    assert!(fixture.control.poll_external_changes().unwrap());
    assert!(!fixture.control.poll_external_changes().unwrap());
    assert!(!fixture.control.still_valid(&principal));
    assert!(fixture.control.authenticate_token(token.expose()).is_err());
}

#[test]
fn scram_verifier_belongs_to_the_whole_token() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant("acme");
    let (key, token) = fixture.key(&tenant);
    let (verifier, principal) = fixture.control.scram_verifier(&key.id).unwrap();
    let principal = principal.unwrap();
    assert_eq!((principal.tenant, &principal.key_id), (tenant.id, &key.id));
    let expected = Verifier::derive(token.expose(), &verifier.salt, 4096);
    assert_eq!(verifier.serialize(), expected.serialize());
    fixture.control.note_use(&principal);
    assert_eq!(fixture.control.list_keys(tenant.id).unwrap()[0].last_used_at, Some(START));
}

/// What a client sees of an id that never existed, lives, or was revoked: the same kind of salt, and always
/// the same.
#[test]
fn scram_does_not_tell_whether_a_key_exists() {
    let fixture = Fixture::new();
    let (key, _) = fixture.key(&fixture.tenant("acme"));
    let challenge = |user: &str| {
        let (verifier, _) = fixture.control.scram_verifier(user).unwrap();
        let mut exchange = ServerExchange::new(SCRAM_SHA_256, None, verifier).unwrap();
        let first = exchange.client_first(b"n,,n=,r=abc").unwrap();
        first.split_once(",s=").unwrap().1.to_owned()
    };
    let (living, unknown) = (challenge(&key.id), challenge("000000000000"));
    assert_eq!(living.len(), unknown.len());
    assert_ne!(living, unknown);
    assert_eq!(challenge("000000000000"), unknown);
    fixture.control.revoke_key(&key.id).unwrap();
    assert_eq!(challenge(&key.id), living, "revoked");
    fixture.control.drop_tenant("acme").unwrap();
    assert_eq!(challenge(&key.id), living, "gone");
}
