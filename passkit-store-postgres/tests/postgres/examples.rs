#[path = "../../examples/ticket.rs"]
#[allow(dead_code, unreachable_pub, reason = "a separate program as well")]
mod ticket;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_runs() {
    ticket::run(&crate::support::new_database().await)
        .await
        .unwrap();
}
