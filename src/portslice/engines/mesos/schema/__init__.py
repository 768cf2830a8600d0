"""The messages, as protobuf's compiler makes them of the .proto files beside."""
