"""A request read: from headers and body to what placing it depends on."""
