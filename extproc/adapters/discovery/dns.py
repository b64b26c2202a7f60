"""The addresses of a DNS name, typically of a headless service: A and AAAA records, asked for at an interval.

Only a complete answer counts. NXDOMAIN and an answer without records are answers: there is no backend. A
failure of one of the two questions (SERVFAIL, no answer in time, something that is no DNS) makes the whole
one fail, or half the fleet would come and go with one lost packet. Answers too long for UDP are fetched by
TCP.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Sequence

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.discovery.source import DiscoveryCounts, can_be_a_backend, name_of_address
from extproc.config.discovery_stage import DnsDiscovery
from extproc.fleet.endpoint import Endpoint, host_and_port

logger = logging.getLogger(__name__)

_RECORD_TYPES = {"any": ("A", "AAAA"), "ipv4": ("A",), "ipv6": ("AAAA",)}


def usable_addresses(found: Iterable[str]) -> list[str]:
    """Return those that backends can have, sorted, each once and in its usual form."""
    return sorted(filter(can_be_a_backend, {str(ipaddress.ip_address(address)) for address in found}))


class DnsSource:
    """Yields the backends after every answer, also when they are the same."""

    def __init__(self, config: DnsDiscovery) -> None:
        self.counts = DiscoveryCounts()
        self._config = config
        self._conditions = ConditionLog(logger, "dns_failed", "dns_answers")
        self._oddities = ConditionLog(logger, "dns_addresses_left_out", "dns_addresses_all_used")

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """Yield one set for each answer; asks again `interval_s` after it."""
        while True:
            try:
                addresses = await self._ask()
            except (dns.exception.DNSException, OSError, ValueError) as error:
                self.counts.failures += 1
                detail = f"{type(error).__name__}: {error}"
                self._conditions.failed(detail, time.monotonic(), host=self._config.host)
            else:
                self.counts.answers += 1
                self._conditions.holds(host=self._config.host)
                prefix, port = self._config.host, self._config.port
                yield [self._config.endpoint(name_of_address(prefix, one), one, port) for one in addresses]
            await asyncio.sleep(self._config.interval_s)

    async def _ask(self) -> list[str]:
        resolver = self._resolver()
        answers = await asyncio.gather(
            *(self._records(resolver, record_type) for record_type in _RECORD_TYPES[self._config.family])
        )
        found = [address for answer in answers for address in answer]
        usable = usable_addresses(found)
        self._log_oddities(sorted(set(found).difference(usable)))
        return usable

    def _log_oddities(self, addresses: Sequence[str]) -> None:
        if addresses:
            detail = f"addresses that no backend has: {', '.join(addresses)}"
            self._oddities.failed(detail, time.monotonic(), host=self._config.host)
        else:
            self._oddities.holds(host=self._config.host)

    async def _records(self, resolver: dns.asyncresolver.Resolver, record_type: str) -> list[str]:
        try:
            answer = await resolver.resolve(
                self._config.host, record_type, raise_on_no_answer=False, search=True
            )
        except dns.resolver.NXDOMAIN:
            return []
        return [record.address for record in answer]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Make a resolver for one question: /etc/resolv.conf may have changed."""
        resolver = dns.asyncresolver.Resolver(configure=self._config.nameservers is None)
        resolver.lifetime = self._config.timeout_s
        if self._config.nameservers is not None:
            resolver.nameservers = [_nameserver(address) for address in self._config.nameservers]
        return resolver


def _nameserver(address: str) -> dns.nameserver.Nameserver:
    return dns.nameserver.Do53Nameserver(*host_and_port(address))
