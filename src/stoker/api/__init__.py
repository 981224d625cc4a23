"""Reception: HTTP in, typed requests to the rooms, AWS answers out. Alone knows botocore, SigV4 and the wire."""
