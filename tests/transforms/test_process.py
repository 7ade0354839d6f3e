import cv2
import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info

from warpbeam.transforms.process import set_up_process


def test_library_calls_use_one_thread_each():
    np.eye(2) @ scipy.linalg.inv(np.eye(2))
    set_up_process()
    assert cv2.getNumThreads() == 1
    pools = threadpool_info()
    assert pools
    assert {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"} == {1}
