"""What a fleet is run with: example fleets, server configurations, units."""
