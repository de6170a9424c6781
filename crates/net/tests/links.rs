//! Links between two private network namespaces, each of a thread of its own: needs root, touches
//! nothing of the host.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::mpsc,
    thread,
};

use compare_net::{
    Addressing, Interface, Netns, Tap, configure, create_veth, delete_link, enter_private_netns,
    links,
};

/// Runs `test` in a thread with a network namespace of its own, or says why it cannot.
fn in_private_netns(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| match enter_private_netns() {
        Ok(()) => test(),
        Err(error) => {
            let required = std::env::var("COMPARE_REQUIRE").is_ok_and(|what| what.contains("net"));
            assert!(!required, "{error}");
            println!("SKIP: {error}");
        }
    });
    outcome.join().expect("the test itself failed");
}

#[test]
fn a_pair_carries_traffic_and_vanishes() {
    in_private_netns(|| {
        assert_eq!(links().unwrap(), ["lo"]);
        let link = Addressing::of(70_000);
        let (to_main, from_peer) = mpsc::channel();
        let (to_peer, from_main) = mpsc::channel::<()>();
        let peer = thread::spawn(move || {
            enter_private_netns().unwrap();
            to_main.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            from_main.recv().unwrap();
            configure(&Interface::ETH0, &link.peer_settings()).unwrap();
            let listener = TcpListener::bind((link.peer_ip, 80)).unwrap();
            to_main.send(File::open("/dev/null").unwrap()).unwrap();
            let (mut stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), link.host_ip);
            stream.write_all(b"hello").unwrap();
            drop(stream);
            from_main.recv().unwrap();
            links().unwrap()
        });
        let host = Interface::new("c-test").unwrap();
        let netns = from_peer.recv().unwrap();
        create_veth(&host, &Interface::ETH0, &link, Netns::Fd(netns.as_fd())).unwrap();
        let again = create_veth(&host, &Interface::ETH0, &link, Netns::Fd(netns.as_fd()));
        assert!(again.unwrap_err().to_string().contains("c-test"));
        to_peer.send(()).unwrap();
        from_peer.recv().unwrap();
        let mut answer = String::new();
        TcpStream::connect((link.peer_ip, 80)).unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        let arp = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        assert!(
            arp.contains("02:c0:01:01:11:70") && arp.contains("0x6"),
            "a permanent entry: {arp}"
        );
        delete_link(&host).unwrap();
        delete_link(&host).unwrap();
        assert_eq!(links().unwrap(), ["lo"]);
        to_peer.send(()).unwrap();
        assert_eq!(peer.join().unwrap(), ["lo"]);
    });
}

#[test]
fn a_tap_lives_as_long_as_its_descriptor() {
    in_private_netns(|| {
        if !std::path::Path::new("/dev/net/tun").exists() {
            println!("SKIP: /dev/net/tun does not exist");
            return;
        }
        let link = Addressing::of(3);
        let name = Interface::new("t-test").unwrap();
        let tap = Tap::create(&name, &link, true).unwrap();
        assert_eq!(links().unwrap(), ["lo", "t-test"]);
        let taken = Tap::create(&name, &link, true);
        assert!(taken.is_err());
        // A datagram to the peer comes out as one frame, addressed to the peer's MAC without ARP.
        UdpSocket::bind((link.host_ip, 0)).unwrap().send_to(b"x", (link.peer_ip, 9)).unwrap();
        let mut file = File::from(tap.into_fd());
        let mut frame = [0; 2048];
        let found = (0..50).any(|_| {
            let got = file.read(&mut frame).unwrap_or(0);
            if got == 0 {
                thread::sleep(std::time::Duration::from_millis(1));
            }
            got > 12 + 14 && frame[12..18] == link.peer_mac && frame[24..26] == [0x08, 0x00]
        });
        assert!(found, "no IPv4 frame to the peer");
        drop(file);
        assert_eq!(links().unwrap(), ["lo"]);
    });
}
