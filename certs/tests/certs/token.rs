//! Tokens: what is taken, and what is refused and how.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use shoal_certs::{Claims, PrivateKey, Seed, TokenError, TokenSigner, TokenVerifier};
use shoal_protocol::{Code, DeviceId};

use crate::NOW_MS;

fn key(number: u64) -> PrivateKey {
    PrivateKey::derive(&Seed::from_number(number), "token")
}

fn signer(number: u64) -> TokenSigner {
    TokenSigner::from_pem(&key(number).to_pem()).unwrap()
}

fn verifier(numbers: &[u64]) -> TokenVerifier {
    let keys: Vec<_> = numbers.iter().map(|number| key(*number).public_pem()).collect();
    TokenVerifier::from_pem(&keys.concat()).unwrap()
}

fn claims() -> Claims {
    Claims {
        device: Some(DeviceId(0xabc)),
        admin: true,
        ..Claims::new("ada@example.org".parse().unwrap(), NOW_MS, NOW_MS + 60_000)
    }
}

/// A token with any header and claims, signed with key 1 as EdDSA whatever the header says.
fn forge(header: &serde_json::Value, claims: &serde_json::Value) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let pkcs8 = rustls_pem(&key(1).to_pem());
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
}

fn rustls_pem(text: &str) -> Vec<u8> {
    use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
    PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).unwrap().secret_pkcs8_der().to_vec()
}

fn eddsa() -> serde_json::Value {
    serde_json::json!({"alg": "EdDSA", "typ": "JWT"})
}

#[test]
fn a_token_says_what_was_signed() {
    let token = signer(1).sign(&claims());
    assert_eq!(verifier(&[1]).verify(&token, NOW_MS), Ok(claims()));
}

#[test]
fn a_token_ends_at_its_expiry_and_not_before() {
    let token = signer(1).sign(&claims());
    assert!(verifier(&[1]).verify(&token, NOW_MS + 59_999).is_ok());
    assert_eq!(verifier(&[1]).verify(&token, NOW_MS + 60_000), Err(TokenError::Expired));
}

#[test]
fn a_token_of_another_key_is_refused() {
    let token = signer(2).sign(&claims());
    assert_eq!(verifier(&[1]).verify(&token, NOW_MS), Err(TokenError::BadSignature));
}

#[test]
fn an_expired_token_of_another_key_tells_nothing_of_its_expiry() {
    let token = signer(2).sign(&claims());
    assert_eq!(verifier(&[1]).verify(&token, NOW_MS + 120_000), Err(TokenError::BadSignature));
}

#[test]
fn while_keys_change_both_are_good() {
    let both = verifier(&[1, 2]);
    for number in [1, 2] {
        assert!(both.verify(&signer(number).sign(&claims()), NOW_MS).is_ok(), "key {number}");
    }
    assert_eq!(both.verify(&signer(3).sign(&claims()), NOW_MS), Err(TokenError::BadSignature));
}

/// Issuers other than ours name their keys as they like, or not at all.
#[test]
fn a_key_may_have_any_name_or_none() {
    let wire = serde_json::json!({"sub": "ada", "exp": NOW_MS / 1000 + 60});
    let mut named = eddsa();
    named["kid"] = "my key".into();
    for header in [eddsa(), named] {
        let read = verifier(&[2, 1]).verify(&forge(&header, &wire), NOW_MS).unwrap();
        assert_eq!((read.user.as_str(), read.device, read.admin), ("ada", None, false));
    }
}

/// A key's name decides which key is asked, never whether one is.
#[test]
fn a_key_name_cannot_point_a_signature_at_another_key() {
    let mut header = eddsa();
    header["kid"] = signer(2).key_name().into();
    let wire = serde_json::json!({"sub": "ada", "exp": NOW_MS / 1000 + 60});
    assert_eq!(verifier(&[1, 2]).verify(&forge(&header, &wire), NOW_MS), Err(TokenError::BadSignature));
}

#[test]
fn no_algorithm_but_eddsa_is_taken() {
    let wire = serde_json::json!({"sub": "ada", "exp": NOW_MS / 1000 + 60});
    for algorithm in ["none", "None", "HS256", "RS256", "ES256", ""] {
        let header = serde_json::json!({"alg": algorithm, "typ": "JWT"});
        let refused = verifier(&[1]).verify(&forge(&header, &wire), NOW_MS).unwrap_err();
        assert_eq!(refused.code(), Code::TokenInvalid, "{algorithm}: {refused}");
    }
}

/// The classic attack: the public key as the secret of an HMAC, and no signature at all.
#[test]
fn neither_a_missing_signature_nor_an_hmac_under_the_public_key_is_taken() {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let wire = part(&serde_json::json!({"sub": "ada", "exp": NOW_MS / 1000 + 60, "adm": true}));
    let none = format!("{}.{wire}.", part(&serde_json::json!({"alg": "none"})));
    let message = format!("{}.{wire}", part(&serde_json::json!({"alg": "HS256"})));
    let public = key(1);
    for secret in [public.public_bytes(), public.public_pem().as_bytes()] {
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let tag = ring::hmac::sign(&secret, message.as_bytes());
        let hmac = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(verifier(&[1]).verify(&hmac, NOW_MS), Err(TokenError::BadSignature));
    }
    let refused = verifier(&[1]).verify(&none, NOW_MS).unwrap_err();
    assert_eq!(refused.code(), Code::TokenInvalid);
}

#[test]
fn a_changed_token_is_refused_whatever_byte_changed() {
    let token = signer(1).sign(&claims());
    let verifier = verifier(&[1]);
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let refused = verifier.verify(&changed, NOW_MS).expect_err("a changed token");
        assert_eq!(refused.code(), Code::TokenInvalid, "byte {at}");
    }
}

#[test]
fn what_is_no_token_is_malformed_and_nothing_is_missing() {
    let verifier = verifier(&[1]);
    assert_eq!(verifier.verify("", NOW_MS), Err(TokenError::Missing));
    for text in [".", "..", "a.b.c", "no token", "\u{1f41f}.\u{1f41f}.\u{1f41f}", &"x".repeat(5000)] {
        assert_eq!(verifier.verify(text, NOW_MS), Err(TokenError::Malformed), "{text:.20}");
    }
}

#[test]
fn claims_that_break_the_rules_are_malformed() {
    let exp = NOW_MS / 1000 + 60;
    for wire in [
        serde_json::json!({"exp": exp}),
        serde_json::json!({"sub": "ada"}),
        serde_json::json!({"sub": "", "exp": exp}),
        serde_json::json!({"sub": "a b", "exp": exp}),
        serde_json::json!({"sub": "a".repeat(65), "exp": exp}),
        serde_json::json!({"sub": "ada", "exp": "soon"}),
        serde_json::json!({"sub": "ada", "exp": -1}),
        serde_json::json!({"sub": "ada", "exp": exp, "dev": "not hex"}),
        serde_json::json!({"sub": "ada", "exp": exp, "adm": "yes"}),
        serde_json::json!({"sub": "ada", "exp": exp, "aud": "another service"}),
    ] {
        assert_eq!(
            verifier(&[1]).verify(&forge(&eddsa(), &wire), NOW_MS),
            Err(TokenError::Malformed),
            "{wire}"
        );
    }
}

#[test]
fn a_token_for_us_among_others_is_taken() {
    let exp = NOW_MS / 1000 + 60;
    for audience in [serde_json::json!("shoal"), serde_json::json!(["mail", "shoal"])] {
        let wire = serde_json::json!({"sub": "ada", "exp": exp, "aud": audience});
        assert!(verifier(&[1]).verify(&forge(&eddsa(), &wire), NOW_MS).is_ok(), "{audience}");
    }
}

#[test]
fn a_token_of_the_future_waits_but_for_a_clock_a_minute_ahead() {
    let wire = |from: u64| serde_json::json!({"sub": "ada", "exp": NOW_MS / 1000 + 600, "nbf": from});
    let verify = |from| verifier(&[1]).verify(&forge(&eddsa(), &wire(from)), NOW_MS);
    assert!(verify(NOW_MS / 1000 + 60).is_ok());
    assert_eq!(verify(NOW_MS / 1000 + 61), Err(TokenError::NotYetValid));
}

#[test]
fn a_verifier_needs_a_key_and_takes_no_crowd() {
    assert!(TokenVerifier::from_pem("").is_err());
    assert!(TokenVerifier::from_pem(&key(1).to_pem()).is_err(), "a private key is no public key");
    assert!(TokenVerifier::from_pem(&key(1).public_pem().repeat(16)).is_ok());
    assert!(TokenVerifier::from_pem(&key(1).public_pem().repeat(17)).is_err());
    assert!(TokenSigner::from_pem(&key(1).public_pem()).is_err(), "a public key does not sign");
}

#[test]
fn secrets_do_not_show_in_debug_text() {
    let secret = key(1).to_pem();
    let shown = format!("{:?} {:?} {:?}", key(1), signer(1), Seed::from_number(1));
    let body = secret.lines().nth(1).unwrap();
    assert!(!shown.contains(body) && shown.len() < 120, "{shown}");
}
