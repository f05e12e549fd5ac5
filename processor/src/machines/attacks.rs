//! Wrong tokens on every method of `Machines`, which come from the protocol's own description.

use std::collections::HashMap;

use navvy_job::outcome::Verdict;
use tonic::Code;

use super::tests::{Scene, here, kind, rules};
use crate::claims::tests::ending;
use crate::grants::tests::raw::{Value, call, filled, methods};
use crate::state::Scope;
use crate::state::tests::{databases, dump};

/// A field that is new fails here until it is said what an attacker would put into it.
#[tokio::test]
async fn a_wrong_token_does_nothing_by_any_method() {
    for database in databases().await {
        let scene = Scene::new(database, rules(1, 10)).await;
        let (victim, token) = scene.task("medium").await;
        let (ended, ended_token) = scene.task("medium").await;
        scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
        let machine = scene.given(&token, "docker").await;
        scene.claims.finish(&ended, 1, ending(Verdict::Passed)).await.unwrap();
        let new = async |scope| scene.database.new_token(&scope, "a test's").await.unwrap();
        let of_victim = |fence| Scope::Task { task: victim.clone(), fence };
        let known = |field: &str| match field {
            "TakeMachineRequest.class" => Value::Bytes(kind().class.into_bytes()),
            "TakeMachineRequest.image" => Value::Bytes(kind().image.into_bytes()),
            "TakeMachineRequest.ticket" | "GiveBackMachineRequest.ticket" => Value::Bytes(b"docker".to_vec()),
            "TakeMachineRequest.host" => Value::Bytes(here().host.into_bytes()),
            "TakeMachineRequest.state" => Value::Bytes(b"/state".to_vec()),
            "TakeMachineRequest.lent" => Value::Number(1),
            other => panic!("say what an attacker would put into {other}"),
        };
        let denied = Code::PermissionDenied;
        let tokens = HashMap::from([
            ("nobody", (None, Code::Unauthenticated)),
            ("a guess", (Some("navvy_guessed".to_owned()), Code::Unauthenticated)),
            ("an admin", (Some(new(Scope::Admin).await), denied)),
            ("a viewer", (Some(new(Scope::Viewer).await), denied)),
            ("a runner", (Some(new(Scope::Class("*".to_owned())).await), denied)),
            ("a launch token", (Some(new(Scope::Launch(victim.clone())).await), denied)),
            ("whoever will have it", (Some(new(of_victim(2)).await), Code::FailedPrecondition)),
            ("a task that has ended", (Some(ended_token), Code::FailedPrecondition)),
        ]);
        let before = dump(&scene.database).await;
        for (who, (token, expected)) in tokens {
            let methods = methods("Machines");
            assert_eq!(methods.len(), 2);
            for method in methods {
                let message = filled(&method.input, &known);
                let answer =
                    call(&scene.channel, &format!("Machines/{}", method.name), token.as_deref(), message).await;
                assert_eq!(answer.unwrap_err().code(), expected, "{who}, {}", method.name);
            }
        }
        assert!(dump(&scene.database).await == before, "something has changed");
        let given = scene.machines.pool().unwrap().given().await.unwrap();
        assert_eq!(given.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), [machine.as_str()]);
        // And by the right one all of it is done.
        for method in methods("Machines") {
            let message = filled(&method.input, &known);
            call(&scene.channel, &format!("Machines/{}", method.name), Some(&token), message).await.unwrap();
        }
        scene.until("its own agent gives it back", async || !scene.maker.has(&machine)).await;
    }
}
