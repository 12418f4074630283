//! Wallets other than Apple's.

use std::fs;

use crate::{
    archives::{pass, token_of},
    program::{Service, registration},
};

const TYPE: &str = "pass.com.example.wallets";

#[test]
fn other_wallets_are_served_if_they_are_allowed() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    let token = token_of(TYPE, "A-1");
    let register = |service: &Service, scheme: &str, push_token: &str| {
        let body = format!(r#"{{"pushToken":"{push_token}"}}"#);
        let headers = [("Authorization", &*format!("{scheme} {token}"))];
        service
            .send(
                "POST",
                &registration("D", TYPE, "A-1"),
                &headers,
                body.as_bytes(),
            )
            .status
    };
    let uuid = "6F9619FF-8B86-D011-B42D-00CF4FC964FF";
    service.start();
    assert_eq!(register(&service, "WalletPass", "c0ffee"), 401);
    assert_eq!(register(&service, "ApplePass", uuid), 400);
    assert_eq!(service.stop("TERM").code(), Some(0));

    let mut service = service.given(&["--other-wallets"]);
    service.start();
    for (scheme, status) in [
        ("AndroidPass", 201),
        ("WalletPass", 200),
        ("WalletUnionPass", 200),
        ("ApplePass", 200),
    ] {
        assert_eq!(register(&service, scheme, uuid), status, "{scheme}");
    }
    assert_eq!(register(&service, "Bearer", uuid), 401);
    assert_eq!(service.list("D", TYPE, None).unwrap().0, ["A-1"]);
}
