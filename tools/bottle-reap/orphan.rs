//! Whose a bottle is, and whether it is an orphan: its owner is proven dead, or nobody owns it and
//! nothing of it runs. Pure functions of what is known of it.

use bottle::inventory::{Container, Inventory};
use bottle::owner::{Life, Owner};

/// Why a bottle is kept; `None`: it is an orphan.
pub(crate) fn kept(
    record: Option<&Owner>,
    lease: Option<&Owner>,
    found: &Inventory,
    life: impl Fn(&Owner) -> Life,
) -> Option<String> {
    let owner = match whose(record, lease, found) {
        Ok(owner) => owner?,
        Err(why) => return Some(why),
    };
    match (&owner, life(&owner)) {
        (Owner::None, _) if found.containers.iter().any(Container::runs) => {
            Some("nobody owns it, and it runs".to_owned())
        }
        (Owner::None, _) | (_, Life::Dead) => None,
        (_, Life::Alive) => Some("its owner lives".to_owned()),
        (_, Life::Unknown) => Some(
            "whether its owner lives cannot be told from this machine and pid namespace".to_owned(),
        ),
    }
}

/// Who owns a bottle; `None`: nobody ever did. The error is why that cannot be told.
///
/// The record knows best. Where there is none, what a container says was written last, then the
/// lease and the networks, which name the pipeline.
pub(crate) fn whose(
    record: Option<&Owner>,
    lease: Option<&Owner>,
    found: &Inventory,
) -> Result<Option<Owner>, String> {
    let label = |text: &str| {
        text.parse::<Owner>().map_err(|error| format!("its label is no owner: {error:#}"))
    };
    if let Some(owner) = record {
        return Ok(Some(owner.clone()));
    }
    if let Some(container) = found.containers.first() {
        return label(&container.owner).map(Some);
    }
    if let Some(owner) = lease {
        return Ok(Some(owner.clone()));
    }
    found.networks.first().map(|network| label(&network.owner)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bottle::inventory::Network;
    use serde_json::json;

    const LIVES: u32 = 1;
    const DIED: u32 = 2;
    const ELSEWHERE: u32 = 3;

    fn owner(pid: u32) -> Owner {
        format!("process:{pid}:1@boot/1/machine").parse().unwrap()
    }

    fn life(of: &Owner) -> Life {
        match of {
            of if *of == owner(DIED) => Life::Dead,
            of if *of == owner(ELSEWHERE) => Life::Unknown,
            _ => Life::Alive,
        }
    }

    fn container(state: &str, owner: &Owner) -> Container {
        serde_json::from_value(json!({
            "id": "", "name": "", "status": "", "image": "", "service": "", "slug": "",
            "project": "", "state": state, "owner": owner,
        }))
        .unwrap()
    }

    fn containers(state: &str, owner: &Owner) -> Inventory {
        Inventory { containers: vec![container(state, owner)], networks: Vec::new() }
    }

    fn networks(owner: &Owner) -> Inventory {
        let network: Network = serde_json::from_value(
            json!({ "id": "", "name": "", "slug": "", "project": "", "owner": owner }),
        )
        .unwrap();
        Inventory { containers: Vec::new(), networks: vec![network] }
    }

    #[test]
    fn only_a_proven_death_makes_an_orphan() {
        let nothing = Inventory::default();
        for (pid, is_kept) in [(LIVES, true), (DIED, false), (ELSEWHERE, true)] {
            let owner = owner(pid);
            assert_eq!(kept(Some(&owner), None, &nothing, life).is_some(), is_kept);
            assert_eq!(kept(None, Some(&owner), &nothing, life).is_some(), is_kept);
            assert_eq!(kept(None, None, &containers("running", &owner), life).is_some(), is_kept);
            assert_eq!(kept(None, None, &networks(&owner), life).is_some(), is_kept);
        }
    }

    #[test]
    fn bottle_of_nobody_is_kept_while_it_runs() {
        let (running, ended) =
            (containers("running", &Owner::None), containers("exited", &Owner::None));
        assert!(kept(Some(&Owner::None), None, &running, life).is_some());
        assert!(kept(Some(&Owner::None), None, &ended, life).is_none());
        // Also where a stage of the pipeline that writes no record was put in.
        assert!(kept(None, Some(&owner(DIED)), &running, life).is_some());
        assert!(kept(None, Some(&owner(DIED)), &ended, life).is_none());
    }

    #[test]
    fn record_is_believed_before_a_label() {
        let found = containers("running", &owner(LIVES));
        assert!(kept(Some(&owner(DIED)), None, &found, life).is_none());
        let found = containers("running", &owner(DIED));
        assert!(kept(Some(&owner(LIVES)), None, &found, life).is_some());
    }

    #[test]
    fn label_that_cannot_be_read_proves_nothing() {
        let mut found = containers("running", &Owner::None);
        "somebody".clone_into(&mut found.containers[0].owner);
        assert!(kept(None, None, &found, life).is_some_and(|why| why.contains("'somebody'")));
    }

    #[test]
    fn leftover_folder_is_an_orphan() {
        assert_eq!(kept(None, None, &Inventory::default(), life), None);
    }
}
