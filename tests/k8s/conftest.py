import pytest

from tests.k8s.manifests import VARIANTS, Document, one, render, renderer


@pytest.fixture(scope="session", params=VARIANTS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    if renderer() is None:
        pytest.skip("rendering the manifests needs kubectl or kustomize on the PATH")
    variant: str = request.param
    return render(variant)


@pytest.fixture
def rayservice(documents: list[Document]) -> Document:
    return one(documents, "RayService")
