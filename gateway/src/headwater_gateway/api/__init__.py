"""What applications call: RoomService (Twirp), webhooks, REST meetings, chat, WHIP and WHEP."""
