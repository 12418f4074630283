//! Services that treat orders like passes.

use http::{Method, header};
use passkit_conformance::Rule;
use serde_json::json;

use super::{
    Fault,
    altered::{
        altered, asked_otherwise, become_empty, edit_json, is_fetch, is_list, is_order, set,
        without_query,
    },
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "lists of orders have the keys of passes",
        rule: Rule::ORD_2,
        caught_by: &["orders/list-has-its-own-words", "orders/lists-go-by-type"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_order(asked) {
                    edit_json(answer, |body| {
                        *body = json!({
                            "serialNumbers": body["orderIdentifiers"], "lastUpdated": body["lastModified"]
                        });
                    });
                }
            })
        },
    },
    Fault {
        name: "without a query, a list of orders is empty",
        rule: Rule::LIST_3,
        caught_by: &["orders/lists-go-by-type"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_list(asked) && is_order(asked) && asked.uri().query().is_none() {
                    become_empty(answer, 204);
                }
            })
        },
    },
    Fault {
        name: "lists of orders expect the parameter of passes",
        rule: Rule::ORD_2,
        caught_by: &["orders/tag-has-its-own-word"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if asked
                    .uri()
                    .query()
                    .is_some_and(|query| query.starts_with("orders"))
                {
                    without_query(asked);
                }
            })
        },
    },
    Fault {
        name: "the scheme of passes opens orders",
        rule: Rule::ORD_2,
        caught_by: &["orders/scheme-is-appleorder"],
        wrong: |sound| {
            asked_otherwise(sound, |asked| {
                if is_order(asked)
                    && let Some(value) = asked.headers_mut().get_mut(header::AUTHORIZATION)
                {
                    *value = value
                        .to_str()
                        .unwrap()
                        .replace("ApplePass", "AppleOrder")
                        .parse()
                        .unwrap();
                }
            })
        },
    },
    Fault {
        name: "an order can't be fetched before it is registered",
        rule: Rule::ORD_3,
        caught_by: &[
            "orders/fetched-before-registered",
            "trace/order-from-apple-pay",
        ],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) && is_order(asked) {
                    become_empty(answer, 404);
                }
            })
        },
    },
    Fault {
        name: "orders have the media type of passes",
        rule: Rule::ORD_4,
        caught_by: &["orders/has-media-type", "orders/has-apples-media-type"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) && asked.method() == Method::GET {
                    set(answer, header::CONTENT_TYPE, "application/vnd.apple.pkpass");
                }
            })
        },
    },
    Fault {
        name: "orders have the undocumented media type",
        rule: Rule::ORD_4,
        caught_by: &["orders/has-apples-media-type"],
        wrong: |sound| {
            altered(sound, |asked, answer| {
                if is_fetch(asked) && answer.status() == 200 {
                    set(answer, header::CONTENT_TYPE, "application/vnd.apple.order");
                }
            })
        },
    },
];
