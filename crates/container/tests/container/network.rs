//! The link to the container.

use std::{
    io::Read,
    net::TcpStream,
    time::{Duration, Instant},
};

use compare_spec::Exit;

use crate::{Case, world::World};

pub const CASES: &[Case] = &[
    ("network::a_server_answers_on_its_address", a_server_answers_on_its_address),
    ("network::two_at_a_time", two_at_a_time),
    ("network::without_a_port_there_is_loopback_alone", without_a_port_there_is_loopback_alone),
    ("network::a_taken_name_is_a_start_error", a_taken_name_is_a_start_error),
];

pub fn ask(instance: &dyn compare_backend::Instance) -> String {
    let started = Instant::now();
    loop {
        let address = (instance.address().unwrap(), 80).into();
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "no answer");
    }
}

fn a_server_answers_on_its_address(world: &mut World) {
    let mut workload = world.workload("serve", &["80"]);
    workload.port = Some(80);
    let mut instance = world.start(&workload);
    let answer = ask(&*instance);
    assert!(answer.starts_with("hello 10."), "{answer}");
    instance.stop(Duration::ZERO).unwrap();
    assert_eq!(instance.exit().unwrap().0, &Exit::Signal { signal: libc::SIGKILL });
}

fn two_at_a_time(world: &mut World) {
    let mut workload = world.workload("serve", &["80"]);
    workload.port = Some(80);
    let mut instances = [world.start(&workload), world.start(&workload)];
    let answers: Vec<_> = instances.iter().map(|instance| ask(&**instance)).collect();
    assert_ne!(answers[0], answers[1]);
    for instance in &mut instances {
        instance.stop(Duration::ZERO).unwrap();
    }
}

fn without_a_port_there_is_loopback_alone(world: &mut World) {
    let workload = world.workload("cat", &["/proc/net/dev"]);
    let mut instance = world.start(&workload);
    assert_eq!(instance.address(), None);
    crate::world::wait_exit(&mut *instance, Duration::from_secs(30));
    let output = instance.output().tail();
    assert!(output.contains("lo:") && !output.contains("eth0"), "{output}");
    instance.stop(Duration::ZERO).unwrap();
}

fn a_taken_name_is_a_start_error(world: &mut World) {
    use compare_backend::{Backend, StartRequest, Timeline};
    let link = compare_net::Addressing::of(9999);
    let name = compare_net::Interface::new("c-taken").unwrap();
    let tap = compare_net::Tap::create(&name, &link, false);
    let Ok(tap) = tap else { return };
    let mut workload = world.workload("serve", &["80"]);
    workload.port = Some(80);
    let parent = world.parent.as_ref().unwrap();
    let request = StartRequest {
        name: "taken",
        slot: 5000,
        workload: &workload,
        image: &world.image,
        parent,
    };
    let error = world.backend.start(&request, Timeline::start()).err().unwrap();
    assert!(error.to_string().contains("connect taken"), "{error}");
    assert!(error.source.unwrap().to_string().contains("c-taken"));
    drop(tap);
}
