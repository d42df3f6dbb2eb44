//! What relayed packets take over from the IP header they came with: RFC 8656 §14, §15.

use turnkey::stun::{AttributeType, Class, MessageWriter, Method};
use turnkey::turn::IpFields;

use crate::lab::{Client, Event, Lab, PEER, addr, channel_data};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.10:40000";

/// A Send indication with DONT-FRAGMENT.
fn send_whole(lab: &mut Lab, client: &Client, peer: &str) -> Vec<Event> {
    let mut buffer = [0; 128];
    let len = MessageWriter::new(&mut buffer, Class::Indication, Method::SEND, lab.transaction())
        .xor_address(AttributeType::XOR_PEER_ADDRESS, addr(peer))
        .attribute(AttributeType::DONT_FRAGMENT, &[])
        .attribute(AttributeType::DATA, b"x")
        .finish()
        .unwrap();
    lab.client_sends(client.path, &buffer[..len])
}

fn marked(tos: u8) -> IpFields {
    IpFields { tos }
}

#[test]
fn rfc8656_14_dscp_and_ecn_outlive_the_relay_in_both_directions() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    for tos in [0, 0xB8, 0x03, 0xFF] {
        lab.ip = marked(tos);
        client.send(&mut lab, PEER, b"x");
        assert_eq!(lab.left_with.take(), Some((marked(tos), false)), "Send");
        lab.client_sends(client.path, &channel_data(0x4000, b"x"));
        assert_eq!(lab.left_with.take(), Some((marked(tos), false)), "ChannelData");
        lab.peer_sends(relayed, PEER, b"x");
        assert_eq!(lab.left_with.take(), Some((marked(tos), false)), "from the peer");
    }
}

#[test]
fn rfc8656_14_dscp_and_ecn_go_from_client_to_client() {
    let mut lab = Lab::new();
    let (one, two) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let (first, second) = (one.allocate(&mut lab), two.allocate(&mut lab));
    one.permit(&mut lab, &second.to_string());
    two.permit(&mut lab, &first.to_string());
    lab.ip = marked(0xB9);
    one.send(&mut lab, &second.to_string(), b"x");
    assert_eq!(lab.left_with.take(), Some((marked(0xB9), false)));
}

#[test]
fn rfc8656_11_2_df_is_set_for_the_packets_that_ask_for_it_and_no_others() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    lab.ip = marked(0x20);
    assert_eq!(send_whole(&mut lab, &client, PEER).len(), 1);
    assert_eq!(lab.left_with.take(), Some((marked(0x20), true)));
    client.send(&mut lab, PEER, b"x");
    assert_eq!(lab.left_with.take(), Some((marked(0x20), false)), "the next Send is as before");
    lab.client_sends(client.path, &channel_data(0x4000, b"x"));
    assert_eq!(lab.left_with.take(), Some((marked(0x20), false)), "ChannelData cannot ask");
    lab.peer_sends(relayed, PEER, b"x");
    assert_eq!(lab.left_with.take(), Some((marked(0x20), false)), "peers cannot ask");
}

#[test]
fn rfc8656_14_between_two_clients_of_this_server_there_is_no_packet_to_fragment() {
    let mut lab = Lab::new();
    let (one, two) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let (first, second) = (one.allocate(&mut lab), two.allocate(&mut lab));
    one.permit(&mut lab, &second.to_string());
    two.permit(&mut lab, &first.to_string());
    assert_eq!(send_whole(&mut lab, &one, &second.to_string()).len(), 1);
    assert_eq!(lab.left_with.take(), Some((marked(0), false)));
}
