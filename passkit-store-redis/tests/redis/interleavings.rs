//! Tries every order of the steps of a few concurrent calls for one device.

use std::{collections::BTreeSet, sync::LazyLock};

use passkit_store_redis::redis::{self, Script};
use passkit_test_servers::redis::Single;

use crate::{
    scripts::{MultiplexedConnection, Removed, run, script},
    support::{connection, prefix},
};

static INDEX_ADD: LazyLock<Script> = LazyLock::new(|| script!("index_add"));
static INDEX_REMOVE: LazyLock<Script> = LazyLock::new(|| script!("index_remove"));
static REGISTER: LazyLock<Script> = LazyLock::new(|| script!("register"));
static UNREGISTER: LazyLock<Script> = LazyLock::new(|| script!("unregister"));
static FORGET: LazyLock<Script> = LazyLock::new(|| script!("forget"));

#[derive(Clone, Copy, Debug)]
enum Call {
    Register(&'static str),
    Unregister(&'static str),
    Forget,
}

use Call::{Forget, Register, Unregister};

/// A call, and its progress.
#[derive(Debug)]
struct Process {
    call: Call,
    step: usize,
    now: u64,
    numbers: [u64; 2],
    /// Index entries to remove: the part of the index, and the number of the entry.
    removals: Vec<(String, u64)>,
    is_done: bool,
}

/// The number of steps of a call if nothing is refused. A call makes its further steps after all calls have made these.
const STEPS: usize = 3;

/// One device and its indexes on a server.
struct World {
    c: MultiplexedConnection,
    prefix: String,
    device: String,
}

const TYPE: &str = "pass.a";

fn field(pass: &str) -> String {
    format!("{TYPE}/{pass}")
}

impl World {
    fn part(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    fn key(&self) -> String {
        format!("{}d{}", self.prefix, self.device)
    }

    async fn step(&mut self, process: &mut Process) {
        let (key, device) = (self.key(), self.device.clone());
        let step = process.step;
        process.step += 1;
        match process.call {
            Register(pass) if step < 2 => {
                let part = self.part(&[field(pass), TYPE.to_owned()][step]);
                let args = [process.now.to_string(), device];
                process.numbers[step] =
                    run::<Vec<u64>>(&mut self.c, &INDEX_ADD, &part, &args).await[0];
            }
            Register(pass) => {
                let [of_pass, of_type] = process.numbers.map(|number| number.to_string());
                let args = ["50", "aa", "1", TYPE, &of_type, &field(pass), &of_pass];
                let answer = run::<Vec<u64>>(&mut self.c, &REGISTER, &key, &args).await[0];
                process.is_done = answer < 2;
                (process.step, process.now) = (0, answer + 1);
            }
            Unregister(pass) if step == 0 => {
                let args = [&field(pass), TYPE, "60", &format!("{process:p}")];
                let removed = run::<Removed>(&mut self.c, &UNREGISTER, &key, &args).await;
                if let Some((of_pass, of_type)) = removed {
                    process.removals.push((self.part(&field(pass)), of_pass));
                    process
                        .removals
                        .extend(of_type.parse().map(|number| (self.part(TYPE), number)));
                }
                process.is_done = process.removals.is_empty();
            }
            Forget if step == 0 => {
                let args = ["1000000", "60", &format!("{process:p}")];
                let removed: Option<Vec<(String, u64)>> =
                    run(&mut self.c, &FORGET, &key, &args).await;
                let removed = removed.into_iter().flatten();
                process.removals = removed
                    .map(|(field, number)| (self.part(&field), number))
                    .collect();
                process.is_done = process.removals.is_empty();
            }
            Unregister(_) | Forget => {
                if let Some((part, number)) = process.removals.pop() {
                    let args = [device, number.to_string()];
                    run::<u64>(&mut self.c, &INDEX_REMOVE, &part, &args).await;
                }
                process.is_done = process.removals.is_empty();
            }
        }
    }

    async fn finish(&mut self, process: &mut Process) {
        while !process.is_done {
            self.step(process).await;
        }
    }

    /// Fails with the first violation of the invariant.
    async fn check(&mut self) -> Result<(), String> {
        let fields = [field("1"), field("2"), field("3"), TYPE.to_owned()];
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(self.key());
        for field in &fields {
            pipe.cmd("HEXISTS").arg(self.part(field)).arg(&self.device);
        }
        let (all, in_index): (Vec<(String, String)>, [bool; 4]) = {
            let (all, a, b, c, d) = pipe.query_async(&mut self.c).await.unwrap();
            (all, [a, b, c, d])
        };
        let registrations: BTreeSet<&String> = all
            .iter()
            .map(|(field, _)| field)
            .filter(|field| field.contains('/'))
            .collect();
        let of_type = all
            .iter()
            .find(|(field, _)| field == TYPE)
            .map(|(_, value)| value.as_str());
        let count = of_type.map_or(0, |value| {
            value
                .split_once(':')
                .map_or(1, |(_, count)| count.parse().unwrap())
        });
        if registrations.len() != count {
            return Err(format!("the type counts {count} registrations: {all:?}"));
        }
        for (field, in_index) in fields.iter().zip(in_index) {
            if all.iter().any(|(name, _)| name == field) && !in_index {
                return Err(format!("{field} has no entry: {all:?}"));
            }
        }
        Ok(())
    }
}

fn process(call: Call) -> Process {
    Process {
        call,
        step: 0,
        now: 100,
        numbers: [0; 2],
        removals: Vec::new(),
        is_done: false,
    }
}

/// A case: index entries that crashed calls left, calls that run first, and concurrent calls.
type Scene = (
    &'static [(&'static str, u64)],
    &'static [Call],
    &'static [Call],
);

/// After every step, each registration has its index entries.
#[tokio::test]
async fn no_order_of_steps_loses_an_index_entry() {
    let server = Single::start().unwrap();
    let c = connection(server.url()).await;
    let prefix = prefix();
    let mut number = 0;
    let scenes: [Scene; 7] = [
        (&[], &[], &[Register("1"), Register("1"), Unregister("1")]),
        (
            &[],
            &[Register("2")],
            &[Register("1"), Register("1"), Unregister("1")],
        ),
        (
            &[("pass.a/1", 500), (TYPE, 100)],
            &[],
            &[Register("1"), Register("2"), Unregister("2")],
        ),
        (
            &[],
            &[Register("1")],
            &[Unregister("1"), Register("2"), Unregister("2")],
        ),
        (
            &[],
            &[Register("1"), Register("2")],
            &[Unregister("1"), Unregister("2"), Register("3")],
        ),
        (&[], &[], &[Register("1"), Register("1"), Forget]),
        (
            &[],
            &[Register("1"), Register("2")],
            &[Forget, Register("2"), Unregister("1")],
        ),
    ];
    for (left_behind, before, calls) in scenes {
        // Each step has the number of the call that was chosen, and how many calls were possible. The next order differs in
        // the last step with another choice.
        let mut order: Vec<(usize, usize)> = Vec::new();
        loop {
            number += 1;
            let mut world = World {
                c: c.clone(),
                prefix: prefix.clone(),
                device: number.to_string(),
            };
            for (field, entry) in left_behind {
                let mut cmd = redis::cmd("HSET");
                cmd.arg(world.part(field)).arg(&world.device).arg(entry);
                let _: () = cmd.query_async(&mut world.c).await.unwrap();
            }
            for call in before {
                world.finish(&mut process(*call)).await;
            }
            let mut processes: Vec<Process> = calls.iter().map(|call| process(*call)).collect();
            let mut taken = vec![0; calls.len()];
            let mut at = 0;
            loop {
                let open: Vec<usize> = (0..calls.len())
                    .filter(|call| !processes[*call].is_done && taken[*call] < STEPS)
                    .collect();
                if open.is_empty() {
                    break;
                }
                if at == order.len() {
                    order.push((0, open.len()));
                }
                let next = open[order[at].0];
                (taken[next], at) = (taken[next] + 1, at + 1);
                world.step(&mut processes[next]).await;
                if let Err(fault) = world.check().await {
                    panic!("{fault}, after {order:?} of {before:?} and then {processes:?}");
                }
            }
            for process in &mut processes {
                world.finish(process).await;
            }
            world
                .check()
                .await
                .unwrap_or_else(|fault| panic!("{fault}, after {order:?} of {calls:?}"));
            while order
                .last()
                .is_some_and(|(choice, choices)| choice + 1 == *choices)
            {
                order.pop();
            }
            let Some(last) = order.last_mut() else { break };
            last.0 += 1;
        }
    }
    println!("{number} orders");
}
