"""Reception: HTTP in, typed requests to the rooms, AWS answers out. Alone knows SigV4 and the wire."""
