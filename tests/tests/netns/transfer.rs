//! Bytes arrive intact.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use tests::lab::{Bulk, BulkServer, Family, Lab, Service, Shape, Tandem};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn a_gibibyte_arrives_each_way() -> Result<()> {
    carries(Shape::TwoArm, Family::V4, GIB)
}

#[test]
fn a_quarter_of_a_gibibyte_arrives_each_way_over_ipv6() -> Result<()> {
    carries(Shape::TwoArm, Family::V6, GIB / 4)
}

#[test]
fn a_hundred_mebibytes_arrive_each_way_on_one_arm() -> Result<()> {
    Family::BOTH.into_iter().try_for_each(|family| carries(Shape::OneArm, family, 100 * MIB))
}

fn carries(shape: Shape, family: Family, bytes: u64) -> Result<()> {
    let lab = Lab::new(shape, 1)?;
    let _server = BulkServer::start(&lab.backends()[0], 80)?;
    let service = Service::new("bulk", (lab.vip(family), 80));
    let service = service.backends(lab.backends(), family, 80);
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;

    let (client, to) = (lab.client(), (lab.vip(family), 80).into());
    let up = Bulk::upload(client, to, bytes, LIMIT)?;
    let down = Bulk::download(client, to, bytes, LIMIT)?;
    assert_eq!(up.checksum, down.checksum);
    println!("{bytes} bytes: up in {:?}, down in {:?}", up.took, down.took);

    let traffic = tandem.status()?.services[0].backends[0].traffic;
    ensure!(traffic.bytes_in > bytes && traffic.bytes_out > bytes, "miscounted: {traffic:?}");
    Ok(())
}

#[test]
fn many_transfers_at_once_do_not_mix() -> Result<()> {
    let lab = Lab::two_arm(2)?;
    let start = |backend| BulkServer::start(backend, 80);
    let _servers = lab.backends().iter().map(|one| start(one)).collect::<Result<Vec<_>>>()?;
    let service = Service::new("bulk", (lab.vip4(), 80));
    let service = service.backends(lab.backends(), Family::V4, 80);
    let tandem = Tandem::start(&lab, &service.to_string())?;
    tandem.wait_until_all_serve()?;

    let (client, to) = (lab.client(), (lab.vip4(), 80).into());
    thread::scope(|scope| {
        let transfers: Vec<_> = (0..16)
            .map(|nth| {
                let transfer = if nth % 4 < 2 { Bulk::upload } else { Bulk::download };
                // Lengths of their own, so that no end is like another's.
                scope.spawn(move || transfer(client, to, 4 * MIB + 100 * nth, LIMIT))
            })
            .collect();
        transfers
            .into_iter()
            .try_for_each(|transfer| transfer.join().expect("transfers do not panic").map(drop))
    })
}
