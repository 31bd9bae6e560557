import numpy as np

from tests.deployments.image.conftest import OpenEasel


def test_a_latent_in_pixels_is_a_picture(easel: OpenEasel) -> None:
    latent = np.array([-2, -1, 0, 1, 2], np.float32).reshape(1, 1, 5)
    pixels = easel().developing.pixels(latent)
    assert pixels.ravel().tolist() == [0, 0, 0.5, 1, 1]
    assert pixels.dtype == np.float32


async def test_a_latent_is_decoded_by_the_models_graph(easel: OpenEasel) -> None:
    model = easel("latent-flow")
    (latents,) = await model.paint(model.request(n=2))
    for latent in latents:
        pixels = model.developing.pixels(latent)
        assert (latent.shape, pixels.shape) == ((3, 4, 4), (3, 8, 8))
        assert np.allclose(pixels[:, ::2, ::2], np.clip(latent / 2 + 0.5, 0, 1), atol=1e-6)
