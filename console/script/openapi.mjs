// filled when docs/openapi exists
