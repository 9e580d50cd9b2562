"""What all tests share: a store on a real server, and two tenants in it."""

import pytest

from convostore import ConvoStore, TenantStore


@pytest.fixture
def store(convostore_store: ConvoStore) -> ConvoStore:
    return convostore_store


@pytest.fixture
def acme(store: ConvoStore) -> TenantStore:
    return store.tenant("acme")


@pytest.fixture
def rival(store: ConvoStore) -> TenantStore:
    return store.tenant("rival")
