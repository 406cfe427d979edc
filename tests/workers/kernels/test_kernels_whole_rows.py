"""From where on numba's form multiplies a table whole, in place of its rows."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from workers.kernels.api.rows import row_dot, row_sum
from workers.kernels.row_order import RowOrder
from workers.kernels.settings import Backend, override
from workers.kernels.torch.rows import _dot as torch_dot

pytestmark = pytest.mark.slow

ROWS, WIDTH = 24, 7
WHOLE = {"whole_dots", "whole_sums", "whole_gradient"}
BY_ROW = {"row_dots", "add_rows", "row_sum_backward"}


@pytest.mark.parametrize(("k", "tokens", "whole"), [(3, 40, True), (2, 40, False), (3, 31, False)])
def test_an_eighth_of_the_rows_a_token_and_enough_tokens(k, tokens, whole):
    torch.manual_seed(0)
    table_ND = torch.randn(ROWS, WIDTH, requires_grad=True)
    x_TD, token_P = torch.randn(tokens, WIDTH), torch.arange(tokens).repeat_interleave(k)
    order = RowOrder(torch.randint(ROWS, (tokens * k,)), token_P, torch.arange(tokens) * k)
    with override(backend=Backend.NUMBA), profile(activities=[ProfilerActivity.CPU]) as seen:
        y_P = row_dot(x_TD, table_ND, order)
        row_sum(y_P, table_ND, order).sum().backward()
    called = {event.key.removeprefix("ffn_nas_cpu::") for event in seen.key_averages()}
    assert called & (WHOLE | BY_ROW) == (WHOLE if whole else BY_ROW)
    torch.testing.assert_close(y_P, torch_dot(x_TD, table_ND, *order.given))
