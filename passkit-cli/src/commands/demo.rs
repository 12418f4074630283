use std::{net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use clap::Args;
use passkit_archive::{ArchiveBuilder, Signer, placeholder_icon};
use passkit_conformance::{
    Client,
    phone::{Phone, State},
};
use passkit_server::{
    identifiers::{Kind, TypeIdentifier},
    service::{MAX_BODY_BYTES, MAX_DEVICES_PER_PASS, Prefix},
};
use serde_json::json;

use super::{
    check::read_archive,
    device::{print_outcome, save},
    serve::Serve,
};
use crate::{
    delivery::Keep,
    failure::Failure,
    listen::Address,
    local_pushes::{LocalPushes, Push},
    logging::LogOptions,
    server,
    store::StoreUrl,
};

const TEAM: &str = "EXAMPLE123";
const PASS_TYPE: &str = "pass.com.example.coffee";
const ORDER_TYPE: &str = "order.com.example.beans";
/// How long the push for a changed file may take.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows everything at once. Makes an example pass and order, serves them, adds them to a virtual
/// phone, changes the pass, and sends the phone a push.
///
/// Then the demo continues to serve, and prints commands to try. Everything, including the push
/// service, runs on this machine, with its files in a temporary folder. Ctrl-C ends the demo and
/// removes the folder.
#[derive(Args)]
pub(crate) struct Demo {
    /// Where to listen. With port 0, the system chooses a free port.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    #[command(flatten)]
    log: LogOptions,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.log.start(tracing::Level::WARN);
        let mut stop = std::pin::pin!(server::stop_signal());
        let folder = tempfile::Builder::new()
            .prefix("passkit-demo-")
            .tempdir()
            .map_err(|error| Failure::new(format!("can't make a temporary folder: {error}")))?;
        let [passes, orders] = ["passes", "orders"].map(|name| folder.path().join(name));

        say!(
            "1. A signed pass and a signed order, in {}",
            folder.path().display()
        );
        let coffee = Coffee::new()?;
        for path in [&passes, &orders] {
            std::fs::create_dir(path).map_err(|error| cannot_write(path, &error))?;
        }
        let (pass, order) = (passes.join("coffee.pkpass"), orders.join("beans.order"));
        write(&pass, &coffee.pass(3)?)?;
        write(&order, &coffee.order()?)?;

        let mut pushes = LocalPushes::start(folder.path()).await?;
        let serve = Serve {
            listen: Address::Port(self.listen),
            socket_mode: 0o600,
            tls_cert: None,
            tls_key: None,
            store: StoreUrl::Sqlite(folder.path().join("passkit.db")),
            copies: folder.path().join("copies"),
            passes: Some(passes),
            orders: Some(orders),
            prefix: Prefix::ROOT,
            allow_unsigned: false,
            max_connections: 64,
            max_connections_per_address: None,
            max_devices_per_pass: MAX_DEVICES_PER_PASS,
            max_body_bytes: MAX_BODY_BYTES,
            other_wallets: false,
            keep_records: Keep::OFF,
            apns: pushes.options.clone(),
            admin_token: None,
            admin_listen: None,
            page: None,
            make: None,
            metrics: None,
            log: self.log.clone(),
            config_file: None,
            print_config: false,
        };
        let ready = tokio::select! {
            ready = serve.prepare() => ready?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        let url = ready.url();
        say!(
            "\n2. The service, over that folder and a new store, and a push service in place of APNs"
        );
        say!("listening on {url}");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(ready.serve(async {
            // The wait also ends when the sender is dropped.
            let _ = ended.await;
        }));

        let state = folder.path().join("phone.json");
        let shown = tokio::select! {
            shown = show(&url, &state, &coffee, &pass, &order, &mut pushes) => shown.map(|()| true),
            () = &mut stop => Ok(false),
        };
        if matches!(shown, Ok(true)) {
            let next = folder.path().join("coffee-1-left.pkpass");
            write(&next, &coffee.pass(1)?)?;
            invite(&state, &next, &pass);
            let show_pushes = async {
                loop {
                    say_push(&pushes.next().await);
                }
            };
            tokio::select! {
                () = &mut stop => {}
                () = show_pushes => {}
            }
        }
        drop(end);
        if let Err(error) = serving.await {
            tracing::error!("the service failed: {error}");
        }
        drop(pushes);
        say!("\nbye");
        shown.map(|_| ExitCode::SUCCESS)
    }
}

/// Runs the part of the demo that does not wait for the user.
async fn show(
    url: &str,
    state: &Path,
    coffee: &Coffee,
    pass: &Path,
    order: &Path,
    pushes: &mut LocalPushes,
) -> Result<(), Failure> {
    let failed = |error| Failure::from_error("the virtual phone failed", &error);
    let mut phone = Phone::new(State::new().map_err(failed)?, Client::default());
    phone.observe(|exchange| say!("{exchange}"));
    for (number, file, what) in [(3, pass, "pass"), (4, order, "order")] {
        say!(
            "\n{number}. A virtual phone adds the {what}. It registers, asks what changed, and fetches the change"
        );
        let archive = read_archive(file)?;
        print_outcome(&phone.add(&archive, Some(url)).await.map_err(failed)?);
    }

    say!(
        "\n5. The file of the pass is replaced. The phone gets a push, asks what changed, and fetches the change"
    );
    write(pass, &coffee.pass(2)?)?;
    let deadline = tokio::time::Instant::now() + PUSH_TIMEOUT;
    loop {
        let push = tokio::time::timeout_at(deadline, pushes.next()).await;
        say_push(&push.map_err(|_| Failure::new("no push came for the changed file"))?);
        let outcome = phone.sync().await.map_err(failed)?;
        print_outcome(&outcome);
        // The push may be for a change that the phone has already fetched.
        if !outcome.updated.is_empty() {
            return save(&phone, state);
        }
    }
}

fn say_push(push: &Push) {
    say!("push of {} to the phone", push.topic);
}

/// Prints commands to try next.
fn invite(state: &Path, next: &Path, pass: &Path) {
    let program = std::env::current_exe()
        .map_or_else(|_| "passkit".into(), |path| path.display().to_string());
    let (state, next, pass) = (state.display(), next.display(), pass.display());
    say!(
        "\n6. Your turn. The service goes on until Ctrl-C. In another terminal:\n\n\
         # what is on the phone\n{program} device --state {state} list\n\n\
         # change the pass, and let the phone ask\ncp {next} {pass}\n{program} device --state {state} sync\n\n\
         # look at the archive\n{program} check {pass}\n\n\
         # delete the pass from the phone\n{program} device --state {state} remove {pass}"
    );
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    // The file is replaced in one step, so that the service never sees half of it.
    let temporary = path.with_extension("part");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("can't write {}: {error}", path.display()))
}

/// Makes the example archives. Their certificates last only as long as the demo.
struct Coffee {
    pass_signer: Signer,
    order_signer: Signer,
}

impl Coffee {
    fn new() -> Result<Self, Failure> {
        let signer = |type_id: &str| -> Result<Signer, Failure> {
            let type_id = TypeIdentifier::new(type_id)
                .map_err(|error| Failure::from_error(type_id, &error))?;
            Signer::throwaway(&type_id, TEAM).map_err(|error| not_made(&error))
        };
        Ok(Self {
            pass_signer: signer(PASS_TYPE)?,
            order_signer: signer(ORDER_TYPE)?,
        })
    }

    /// Makes a stamp card on which this many coffees are left.
    fn pass(&self, left: u32) -> Result<Vec<u8>, Failure> {
        let description = json!({
            "formatVersion": 1,
            "passTypeIdentifier": PASS_TYPE,
            "serialNumber": "CARD-0001",
            "teamIdentifier": TEAM,
            "organizationName": "Example Coffee",
            "description": "A stamp card",
            "logoText": "Example Coffee",
            "backgroundColor": "rgb(87, 58, 42)",
            "foregroundColor": "rgb(255, 255, 255)",
            "labelColor": "rgb(220, 200, 180)",
            "storeCard": {
                "primaryFields": [
                    { "key": "left", "label": "coffees left", "value": left, "changeMessage": "%@ coffees left" }
                ]
            },
            "webServiceURL": "https://wallet.example.com/",
            "authenticationToken": "an-example-token-for-CARD-0001",
        });
        build(Kind::Pass, &description, &self.pass_signer)
    }

    fn order(&self) -> Result<Vec<u8>, Failure> {
        let description = json!({
            "schemaVersion": 1,
            "orderTypeIdentifier": ORDER_TYPE,
            "orderIdentifier": "ORDER-0001",
            "orderType": "ecommerce",
            "orderNumber": "0001",
            "orderManagementURL": "https://shop.example.com/orders/0001",
            "merchant": {
                "displayName": "Example Beans",
                "merchantIdentifier": "merchant.com.example.beans",
                "url": "https://shop.example.com",
            },
            "status": "open",
            "createdAt": "2026-11-22T10:00:00Z",
            "updatedAt": "2026-11-22T10:00:00Z",
            "webServiceURL": "https://wallet.example.com/",
            "authenticationToken": "an-example-token-for-ORDER-0001",
        });
        build(Kind::Order, &description, &self.order_signer)
    }
}

fn build(kind: Kind, description: &serde_json::Value, signer: &Signer) -> Result<Vec<u8>, Failure> {
    ArchiveBuilder::new(kind, description.to_string())
        .file("icon.png", placeholder_icon(29))
        .file("icon@2x.png", placeholder_icon(58))
        .build_signed(signer)
        .map_err(|error| not_made(&error))
}

fn not_made(error: &dyn std::error::Error) -> Failure {
    Failure::from_error("can't make the example", error)
}
